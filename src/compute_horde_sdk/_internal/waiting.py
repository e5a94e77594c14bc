"""Follow one job to its end: pushed where the facilitator can, polled where it cannot."""

from typing import Protocol

from compute_horde_sdk._internal.exceptions import ComputeHordeError
from compute_horde_sdk._internal.models import ComputeHordeJobStatus
from compute_horde_sdk._internal.port import Change, Horde, JobSnapshot, News
from compute_horde_sdk._internal.wiring import Wiring

MAX_FAILED_LOOKS = 10
"""Looks at a job that may fail one after another, each with its own retries, before the waiter hears of it."""


class Followed(Protocol):
    """The job, as far as following it goes."""

    uuid: str
    status: ComputeHordeJobStatus

    def _take(self, snapshot: JobSnapshot) -> None: ...

    def _take_change(self, change: Change) -> bool: ...


async def follow(job: Followed, horde: Horde, wiring: Wiring) -> None:
    """Return when the job is in a final state with its result.

    The stream is open before the first look, so nothing that happens in between is lost. Being cancelled leaves no
    task and no connection behind.

    :raises ComputeHordeError: refused, or out of reach for too long.
    """
    async with horde.subscribe(job.uuid) as news:
        pause, failed = wiring.poll_first_s, 0
        while True:
            news.refreshing()
            try:
                job._take(await horde.look(job.uuid))
                failed = 0
            except ComputeHordeError as error:
                failed += 1
                if not error.retryable or failed >= MAX_FAILED_LOOKS:
                    raise
            if not job.status.is_in_progress():
                return
            within = wiring.quiet_refresh_s if horde.connected and not failed else pause
            if await _until_look(job, news, within):
                return
            pause = min(pause * 1.5, wiring.poll_cap_s)


async def _until_look(job: Followed, news: News, within_s: float) -> bool:
    """Take over changes until the job has ended (True) or has to be looked at (False)."""
    while change := await news.next(within_s):
        if not job._take_change(change):
            return False
        if not job.status.is_in_progress():
            return True
    return False

"""Cancelling jobs: the wish is stored, passed on to the validator, and kept even where the validator is not."""

from collections.abc import Callable

from compute_horde.facilitator.ending import NEVER_SENT, NOT_STOPPED, Endings
from compute_horde.facilitator.errors import NO_JOB, ApiError
from compute_horde.facilitator.store import JobStore, UnderWay
from compute_horde.facilitator.validators import Link, Links
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.extensions import Extension


class Cancelling:
    """``limit_s``: after so long the supervisor ends the job itself; ``on_deadline`` is told when that will be."""

    def __init__(
        self,
        store: JobStore,
        links: Links,
        endings: Endings,
        *,
        now: Callable[[], float],
        limit_s: float,
        on_deadline: Callable[[float], None],
    ) -> None:
        self._store, self._links, self._endings = store, links, endings
        self._now, self._limit, self._on_deadline = now, limit_s, on_deadline

    async def request(self, job_uuid: str, user: str) -> None:
        """Cancel one of the user's jobs. One that has ended is left as it is; asking again changes nothing.

        :raises ApiError: 404.
        """
        now = self._now()
        job = await self._store.request_cancel(job_uuid, user, now + self._limit)
        if job is None:
            raise ApiError(404, NO_JOB)
        if job.state.is_terminal:
            return
        self._on_deadline(now + self._limit)
        if self._links.withdraw(job_uuid):
            await self._endings.cancel(job_uuid, NEVER_SENT)
        elif link := self._links.usable(job.validator, now):
            await self._tell(link, job)

    async def hand_over(self, link: Link) -> None:
        """Tell a new connection of every cancelled job that is still under way, unless a newer one came since.

        It is told as well of those that were ended without it, while it was away: their containers may still run.
        """
        for job in await self._store.cancelling(link.hotkey):
            if self._links.usable(link.hotkey, self._now()) is not link:
                return
            await self._tell(link, job)
        if Extension.CANCEL in link.extensions:
            for job_uuid in await self._store.perhaps_running(link.hotkey, self._now()):
                link.push(V0CancelJobRequest(job_uuid=job_uuid))

    async def _tell(self, link: Link, job: UnderWay) -> None:
        if Extension.CANCEL not in link.extensions:
            await self._endings.cancel(job.uuid, NOT_STOPPED)
            return
        if job.state is JobState.SENT:  # a request to cancel a job that the validator has not seen is ignored
            self._links.give(link, job.uuid, job.frame)
        link.push_cancel(job.uuid)

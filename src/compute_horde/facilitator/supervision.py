"""Every job ends: one whose validator falls silent is given up at its deadline (G10)."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from compute_horde.facilitator.jobs import user_topic
from compute_horde.facilitator.store import JobStore, UnknownJob
from compute_horde.lifecycle.failures import problem
from compute_horde.lifecycle.states import IllegalTransition, JobState
from compute_horde.protocol.details import HordeFailureDetails, StatusMetadata
from compute_horde.protocol.enums import HordeFailureReason, Participant
from compute_horde.storage.bus import Bus

log = structlog.get_logger(__name__)
RETRY_SECONDS = 5


class Supervisor:
    """Sleeps until the earliest deadline in the database, so a restart loses none."""

    def __init__(self, store: JobStore, bus: Bus, now: Callable[[], float]) -> None:
        self._store, self._bus, self._now = store, bus, now
        self._wake = asyncio.Event()
        self._next: float | None = None

    def note(self, deadline: float) -> None:
        """A job with this deadline was stored."""
        if self._next is None or deadline < self._next:
            self._next = deadline
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.expire()
                await self._sleep()
            except Exception:
                log.exception("supervision failed, trying again")
                await asyncio.sleep(RETRY_SECONDS)

    async def expire(self) -> None:
        """Give up every job whose deadline has passed."""
        for job_uuid, state in await self._store.overdue(self._now()):
            with contextlib.suppress(UnknownJob, IllegalTransition):  # it ended meanwhile
                user = await self._store.add_status(
                    job_uuid, JobState.HORDE_FAILED, _silence(state), Participant.FACILITATOR, self._now()
                )
                self._bus.notify(user_topic(user))
                log.warning("job given up: its validator was silent", job_uuid=job_uuid, state=state.value)

    async def _sleep(self) -> None:
        self._wake.clear()
        self._next = await self._store.next_deadline()
        pause = None if self._next is None else max(0.0, self._next - self._now())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)


def _silence(state: JobState) -> str:
    found = problem(
        "validator_silent",
        f"The validator reported nothing within the job's limits; the last status was {state.value}",
        last_status=state.value,
    )
    details = HordeFailureDetails(
        reported_by=Participant.FACILITATOR,
        reason=HordeFailureReason.UNHANDLED_TIMEOUT,
        message=found.message,
        context=found.to_context(),
    )
    return StatusMetadata(horde_failure_details=details).model_dump_json(exclude_none=True)

"""Every job ends: one whose validator falls silent is given up at its deadline (G10)."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from compute_horde.facilitator.ending import NOT_CONFIRMED, Endings
from compute_horde.facilitator.rows import UnderWay
from compute_horde.facilitator.store import JobStore
from compute_horde.lifecycle.clock import RECHECK_SECONDS
from compute_horde.telemetry.logs import bind_job

log = structlog.get_logger(__name__)
RETRY_SECONDS = 5


class Supervisor:
    """Sleeps until the earliest deadline in the database, so a restart loses none. Several do no harm.

    ``clock``: the steady one. It goes on while the machine is suspended, and this sleep does not: so it is short.
    """

    def __init__(self, store: JobStore, endings: Endings, clock: Callable[[], float]) -> None:
        self._store, self._endings, self._clock = store, endings, clock
        self._wake = asyncio.Event()
        self._next: float | None = None

    def note(self, deadline: float) -> None:
        """A job with this deadline was stored."""
        if self._next is None or deadline < self._next:
            self._next = deadline
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        bounded = False
        while True:
            try:
                if not bounded:
                    await self._store.bound_deadlines(self._clock())
                    bounded = True
                await self.expire()
                await self._sleep()
            except Exception:
                log.exception("supervision failed, trying again")
                await asyncio.sleep(RETRY_SECONDS)

    async def expire(self) -> None:
        """End every job whose deadline has passed: as cancelled where that was asked for."""
        for job in await self._store.overdue(self._clock()):
            with bind_job(job.uuid, peer=job.validator):
                await self._end(job)

    async def _end(self, job: UnderWay) -> None:
        if job.cancel_requested:
            await self._endings.cancel(job.uuid, NOT_CONFIRMED)
        else:
            await self._endings.give_up(job.uuid, job.state)

    async def _sleep(self) -> None:
        self._wake.clear()
        self._next = await self._store.next_deadline()
        left = RECHECK_SECONDS if self._next is None else self._next - self._clock()
        pause = min(max(0.0, left), RECHECK_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)

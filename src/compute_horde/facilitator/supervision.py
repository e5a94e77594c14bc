"""Every job ends: one whose validator falls silent is given up at its deadline (G10)."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from compute_horde.facilitator.ending import NOT_CONFIRMED, Endings
from compute_horde.facilitator.store import JobStore

log = structlog.get_logger(__name__)
RETRY_SECONDS = 5


class Supervisor:
    """Sleeps until the earliest deadline in the database, so a restart loses none."""

    def __init__(self, store: JobStore, endings: Endings, now: Callable[[], float]) -> None:
        self._store, self._endings, self._now = store, endings, now
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
        """End every job whose deadline has passed: as cancelled where that was asked for."""
        for job in await self._store.overdue(self._now()):
            if job.cancel_requested:
                await self._endings.cancel(job.uuid, NOT_CONFIRMED)
            else:
                await self._endings.give_up(job.uuid, job.state)

    async def _sleep(self) -> None:
        self._wake.clear()
        self._next = await self._store.next_deadline()
        pause = None if self._next is None else max(0.0, self._next - self._now())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)

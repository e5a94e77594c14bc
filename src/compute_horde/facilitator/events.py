"""Server-sent events: every new status of a user's jobs, as it happens (ours)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from compute_horde.facilitator.job_view import job_event
from compute_horde.facilitator.jobs import user_topic
from compute_horde.facilitator.login import Login, Session
from compute_horde.facilitator.store import JobStore
from compute_horde.storage.bus import Bus

KEEP_ALIVE_SECONDS = 15
BATCH = 50


class Events:
    """Streams of events. The database holds them; the bus only wakes those who wait."""

    def __init__(self, store: JobStore, bus: Bus, login: Login, keep_alive_s: float = KEEP_ALIVE_SECONDS) -> None:
        self._store, self._bus, self._login, self._keep_alive = store, bus, login, keep_alive_s
        self._waiting: set[asyncio.Event] = set()
        self._closing = False

    async def start_after(self, asked: int | None) -> int:
        """The position to begin behind: the one asked for, or now."""
        return await self._store.last_event() if asked is None else asked

    def close(self) -> None:
        """End every stream; at shutdown."""
        self._closing = True
        for event in self._waiting:
            event.set()

    async def stream(self, session: Session, after: int) -> AsyncIterator[bytes]:
        """SSE text, until the client leaves, the login ends or the service stops. A client then resumes."""
        with self._bus.subscribe(user_topic(session.hotkey)) as woken:
            self._waiting.add(woken)
            try:
                yield b": connected\n\n"
                while not self._closing and self._login.is_good(session):
                    woken.clear()
                    rows = await self._store.events_after(session.hotkey, after, BATCH)
                    for row in rows:
                        after = row["id"]
                        yield f"id: {after}\nevent: status\ndata: {job_event(row).to_frame()}\n\n".encode()
                    if len(rows) < BATCH and not await self._wait(woken):
                        yield b": keep-alive\n\n"
            finally:
                self._waiting.discard(woken)

    async def _wait(self, woken: asyncio.Event) -> bool:
        if self._closing:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(woken.wait(), self._keep_alive)
            return True
        return False

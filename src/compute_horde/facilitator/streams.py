"""What the streams of events and of output share: they end with the login and with the service."""

import asyncio
import contextlib
from collections.abc import Iterator

from compute_horde.facilitator.login import Login, Session
from compute_horde.storage.bus import Bus

KEEP_ALIVE_SECONDS = 15
RETRY = "retry: 500\n"
"""How soon, in milliseconds, a client comes back that lost its stream."""
KEEP_ALIVE = b": keep-alive\n\n"


class Streams:
    """Every open stream."""

    def __init__(self, bus: Bus, login: Login) -> None:
        self._bus, self._login = bus, login
        self._waiting: set[asyncio.Event] = set()
        self._closing = False

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._waiting)

    def close(self) -> None:
        """End every stream; at shutdown."""
        self._closing = True
        for event in self._waiting:
            event.set()

    def is_open(self, session: Session) -> bool:
        return not self._closing and self._login.is_good(session)

    @contextlib.contextmanager
    def woken_by(self, topic: str) -> Iterator[asyncio.Event]:
        """An event set at each notification, and when the service stops; cleared *before* looking at either."""
        with self._bus.subscribe(topic) as woken:
            self._waiting.add(woken)
            try:
                yield woken
            finally:
                self._waiting.discard(woken)

    def noted(self, topic: str) -> contextlib.AbstractContextManager[asyncio.Event]:
        """An event set at each notification of a topic that is never told alone."""
        return self._bus.subscribe(topic)


async def happened(event: asyncio.Event, within_s: float) -> bool:
    """Whether the event is set in time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), within_s)
        return True
    return False

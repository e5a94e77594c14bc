"""Those who wait in this process, by topic."""

import asyncio
import contextlib
import zlib
from collections.abc import Iterator


class Waiting:
    """Events of subscribers."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}

    def wake(self, topic: str) -> None:
        for event in self._events.get(topic, ()):
            event.set()

    def wake_all(self) -> None:
        self.wake_part(0, 1)

    def wake_part(self, part: int, parts: int) -> None:
        """Wake those whose topic falls into this one of so many equal parts, counted from 0."""
        for topic, events in self._events.items():
            if zlib.crc32(topic.encode()) % parts == part:
                for event in events:
                    event.set()

    @contextlib.contextmanager
    def subscribe(self, topic: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._events.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            self._events[topic].discard(event)
            if not self._events[topic]:
                del self._events[topic]

"""The notify bus: wakes those who wait for something to have changed. It carries no data; the database does."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Protocol


class Bus(Protocol):
    """Topics are short strings. A wake-up may come without a change; a change never goes without a wake-up."""

    def notify(self, topic: str) -> None:
        """Wake every subscriber of the topic."""
        ...

    def subscribe(self, topic: str) -> contextlib.AbstractContextManager[asyncio.Event]:
        """An event that is set at every notification; whoever waits clears it *before* reading the database."""
        ...


class LocalBus:
    """A :class:`Bus` within one process."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def notify(self, topic: str) -> None:
        for event in self._waiting.get(topic, ()):
            event.set()

    @contextlib.contextmanager
    def subscribe(self, topic: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[topic].discard(event)
            if not self._waiting[topic]:
                del self._waiting[topic]

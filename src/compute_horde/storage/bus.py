"""The notify bus: wakes those who wait for something to have changed. It carries no data; the database does."""

import asyncio
import contextlib
from typing import Protocol

from compute_horde.storage.database import Database
from compute_horde.storage.postgres_bus import CATCH_UP_S, PostgresBus
from compute_horde.storage.waiting import Waiting


class Bus(Protocol):
    """Topics are short strings. A wake-up may come without a change; a change never goes without a wake-up.

    Notify *after* the change is committed: whoever is woken reads the database at once.
    """

    def notify(self, topic: str) -> None:
        """Wake every subscriber of the topic, in this process at once."""
        ...

    def subscribe(self, topic: str) -> contextlib.AbstractContextManager[asyncio.Event]:
        """An event that is set at every notification; whoever waits clears it *before* reading the database."""
        ...

    async def start(self) -> None:
        """Begin to hear other processes. Before that, and after :meth:`close`, it works within this one.

        :raises DatabaseUnavailable:
        """
        ...

    async def close(self) -> None:
        """Doing so twice is fine."""
        ...


class LocalBus:
    """A :class:`Bus` within one process."""

    def __init__(self) -> None:
        self._waiting = Waiting()
        self.subscribe = self._waiting.subscribe

    def notify(self, topic: str) -> None:
        self._waiting.wake(topic)

    async def start(self) -> None:
        """There is nothing to start."""

    async def close(self) -> None:
        """There is nothing to close."""


def make_bus(database: Database, catch_up_s: float = CATCH_UP_S) -> Bus:
    """What fits the database: processes that share PostgreSQL hear each other."""
    return PostgresBus(database.address, catch_up_s) if database.dialect == "postgresql" else LocalBus()

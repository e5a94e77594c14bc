"""What was committed, on the disk: the database is asked for it outside of the jobs' way, once for many waiters.

A killed process loses nothing that it has committed; a machine (or PostgreSQL itself) that fails may lose the
last commits, since both databases leave the moment of writing to the system: SQLite with ``synchronous=NORMAL``,
PostgreSQL with ``synchronous_commit=off``. Waiting for the disk within each commit would hold up every job. So
whoever is about to promise something to a peer waits here, and nobody else.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from compute_horde.storage.errors import DatabaseUnavailable

Sync = Callable[[], Awaitable[None]]
"""Brings to the disk all that was committed before it was called."""


class Settling:
    """``sync`` None: there is nothing to bring anywhere."""

    def __init__(self, sync: Sync | None) -> None:
        self._sync = sync
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def settled(self) -> None:
        """Return when all that was committed before the call is on the disk.

        :raises DatabaseUnavailable: the disk does not take it.
        """
        if self._sync is None:
            return
        if self._next is None:  # one that is running already may have begun before the caller's commit
            self._next = asyncio.create_task(self._after(self._running, self._sync))
        await asyncio.shield(self._next)

    async def close(self) -> None:
        """Wait for what is under way."""
        waited = [task for task in (self._running, self._next) if task is not None]
        await asyncio.gather(*waited, return_exceptions=True)

    async def _after(self, running: "asyncio.Task[None] | None", sync: Sync) -> None:
        if running is not None:
            await asyncio.wait({running})
        self._running, self._next = asyncio.current_task(), None
        await sync()


def log_of(file: Path) -> Sync:
    """The write-ahead log of a SQLite file."""
    log = file.with_name(f"{file.name}-wal")

    async def sync() -> None:
        try:
            await asyncio.to_thread(_sync_file, log)
        except OSError as error:
            why = f"the database's log cannot be brought to the disk: {error.strerror}"
            raise DatabaseUnavailable(why) from None

    return sync


def _sync_file(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # closed in order: all of it is in the database itself
        descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

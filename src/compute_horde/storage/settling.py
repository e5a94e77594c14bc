"""What was committed, on the disk: SQLite's log is brought there outside of the event loop, once for many waiters.

A killed process loses nothing that it has committed; a machine that loses its power may lose the last commits,
since SQLite leaves the moment of writing to the system (``synchronous=NORMAL``). Waiting for the disk within each
commit would hold up every job. So whoever is about to promise something to a peer waits here, and nobody else.
"""

import asyncio
import contextlib
import os
from pathlib import Path

from compute_horde.storage.errors import DatabaseUnavailable


class Settling:
    """The log of one SQLite file. PostgreSQL needs none: its commits are on the disk."""

    def __init__(self, file: Path | None) -> None:
        self._log = None if file is None else file.with_name(f"{file.name}-wal")
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def settled(self) -> None:
        """Return when all that was committed before the call is on the disk.

        :raises DatabaseUnavailable: the disk does not take it.
        """
        if self._log is None:
            return
        if self._next is None:  # one that is running already may have begun before the caller's commit
            self._next = asyncio.create_task(self._after(self._running))
        await asyncio.shield(self._next)

    async def close(self) -> None:
        """Wait for what is under way."""
        waited = [task for task in (self._running, self._next) if task is not None]
        await asyncio.gather(*waited, return_exceptions=True)

    async def _after(self, running: "asyncio.Task[None] | None") -> None:
        if running is not None:
            await asyncio.wait({running})
        self._running, self._next = asyncio.current_task(), None
        try:
            await asyncio.to_thread(self._sync)
        except OSError as error:
            raise DatabaseUnavailable(
                f"the database's log cannot be brought to the disk: {error.strerror}"
            ) from None

    def _sync(self) -> None:
        if self._log is None:
            return
        with contextlib.suppress(FileNotFoundError):  # closed in order: all of it is in the database itself
            descriptor = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

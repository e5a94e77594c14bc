"""Processes that can be killed, within one: what belongs to each, and what is left of it."""

import asyncio
import contextlib
import contextvars
import os
import sqlite3
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PAGES_AT_WILL = 1_073_741_823
ROUNDS = 200


class Process:
    """A context: tasks that are made in it, and connections to databases that are opened in it, are its own."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, locks: Path | None = None) -> None:
        """``locks``: the folder with the files that it holds locked."""
        self.name, self.alive, self.full = name, True, False
        self.ended: asyncio.Future[int] = loop.create_future()
        self.context = contextvars.Context()
        self.context.run(OWNER.set, self)
        self._loop, self._locks = loop, locks
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connections: list[sqlite3.Connection] = []

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Let the process do something."""
        return self._loop.create_task(work, context=self.context)

    def go(self, work: Coroutine[Any, Any, None]) -> None:
        """The same, and nobody waits for it."""
        self.adopt(self.spawn(work))

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """A task was made in this process. The dead make none."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=contextvars.Context())
        if not self.alive:
            task.cancel()

    def connected(self, connection: sqlite3.Connection) -> None:
        """It has opened a database."""
        self._connections.append(connection)
        self._limit(connection)

    def fill_disk(self, full: bool) -> None:
        """From now on its databases cannot grow, or can again."""
        self.full = full
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                self._limit(connection)

    def _limit(self, connection: sqlite3.Connection) -> None:
        """A database cannot be given fewer pages than it has."""
        connection.execute(f"PRAGMA max_page_count={1 if self.full else PAGES_AT_WILL}").fetchone()

    async def edge(self) -> None:
        """To be awaited wherever something would leave the process: the dead stop here."""
        if not self.alive:
            await self._loop.create_future()

    async def kill(self) -> None:
        """SIGKILL: transactions are rolled back, locks are free, nothing else is done any more."""
        if not self.alive:
            return
        self.alive = False
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()  # a statement that is still open would keep the lock
                connection.close()
        for _ in range(ROUNDS):
            if not (tasks := [task for task in self._tasks if not task.done()]):
                break
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
        else:
            raise AssertionError(f"{self.name} cannot be killed: {tasks}")
        self._unlock()
        if not self.ended.done():
            self.ended.set_result(-9)

    def _unlock(self) -> None:
        if self._locks is None:
            return
        prefix = f"{self._locks}{os.sep}"
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{number}").startswith(prefix):
                    os.close(int(number))


OWNER: contextvars.ContextVar[Process | None] = contextvars.ContextVar("OWNER", default=None)
"""In whose context something happens; None: the test's."""

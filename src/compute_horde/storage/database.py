"""One SQLAlchemy engine per service, SQLite by default."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from compute_horde.storage.sqlite import connect

BUSY_TIMEOUT_MS = 10_000
READ_ONLY = "compute_horde_read_only"
"""The execution option that marks a transaction which writes nothing."""


class Database:
    """Transactions on one database. ``url`` is SQLAlchemy's, e.g. ``sqlite+aiosqlite:////path/file.db``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self._reader = self.engine.execution_options(**{READ_ONLY: True})
        # SQLite lets a second writer sleep, up to 100 ms at a time; here it goes on as soon as the first is done
        self._turn = asyncio.Lock() if self.engine.dialect.name == "sqlite" else contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back when it raises. No network I/O in it."""
        async with self._turn, self.engine.begin() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads, beside whoever writes: it sees all that was committed when it began."""
        if ":memory:" in self.url:  # one connection serves all
            async with self.begin() as connection:
                yield connection
            return
        async with self._reader.begin() as connection:
            yield connection

    async def close(self) -> None:
        await self.engine.dispose()


def _engine(url: str) -> AsyncEngine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_async_engine(url, pool_pre_ping=True)
    pool = StaticPool if ":memory:" in url else None
    creator = partial(connect, parsed.database or ":memory:")
    engine = create_async_engine(url, poolclass=pool, async_creator=creator)
    event.listen(engine.sync_engine, "connect", _tune_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_immediate)
    return engine


def _tune_sqlite(connection: Any, _record: object) -> None:
    """Readers beside a writer; SIGKILL loses nothing; foreign keys are kept."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Any) -> None:
    """Take the write lock at the start, so that two writers wait for each other instead of failing."""
    reads = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

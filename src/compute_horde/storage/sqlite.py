"""SQLite in the event loop's own thread.

A statement on a local file takes some tens of microseconds. aiosqlite hands each one to a thread four times over,
and on a busy machine every trip waits for its turn: a job's end, which goes through four transactions, took twice
as long. Nothing here waits for another writer of this process, since
:class:`~compute_horde.storage.database.Database` lets them in one by one: a statement holds the loop up for no
longer than SQLite works on it.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from compute_horde.storage.address import MEMORY, Address

BUSY_TIMEOUT_MS = 10_000
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=NORMAL",  # see storage/settling.py
    "foreign_keys=ON",
    f"busy_timeout={BUSY_TIMEOUT_MS}",
    f"journal_size_limit={64 * 1024 * 1024}",
)
READING: dict[str, Any] = {"compute_horde_read_only": True}
"""The execution option that marks a transaction which writes nothing."""


class Cursor:
    """What SQLAlchemy asks of aiosqlite's."""

    def __init__(self, raw: sqlite3.Cursor) -> None:
        self._raw = raw
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    @property
    def description(self) -> Any:
        return self._raw.description

    @property
    def rowcount(self) -> int:
        return self._raw.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._raw.lastrowid

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        self._raw.execute(sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Self:
        self._raw.executemany(sql, parameters)
        return self

    async def fetchall(self) -> list[Any]:
        return self._raw.fetchall()

    async def close(self) -> None:
        self._raw.close()


class Connection:
    """What SQLAlchemy asks of aiosqlite's."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._connection: sqlite3.Connection | None = raw  # by this name SQLAlchemy looks whether it is open
        self.isolation_level = raw.isolation_level

    def cursor(self) -> Cursor:
        return Cursor(self._open.cursor())

    async def commit(self) -> None:
        self._open.commit()

    async def rollback(self) -> None:
        self._open.rollback()

    async def create_function(self, name: str, arguments: int, function: Callable[..., Any], **kinds: Any) -> None:
        self._open.create_function(name, arguments, function, **kinds)

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Close; doing so twice is fine."""
        raw, self._connection = self._connection, None
        if raw is not None:
            raw.close()

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError("no active connection")
        return self._connection


async def connect(path: str) -> Connection:
    """A connection to the database in this file, made when it is not there. Transactions are begun by hand."""
    return Connection(sqlite3.connect(path, isolation_level=None, check_same_thread=False))


def make_engine(address: Address) -> AsyncEngine:
    """An engine for one file, or for one database in memory that all its users share."""
    path = str(address.file or MEMORY)

    async def creator() -> Connection:
        return await connect(path)

    pool = AsyncAdaptedQueuePool if address.file else StaticPool
    engine = create_async_engine(
        "sqlite+aiosqlite://", poolclass=pool, async_creator=creator, hide_parameters=True
    )
    event.listen(engine.sync_engine, "connect", _tune)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _tune(connection: Any, _record: object) -> None:
    """Readers beside a writer; SIGKILL loses nothing; foreign keys are kept; free pages can be given back."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA page_count")
    if cursor.fetchone() == (0,):  # it cannot be had later
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Any) -> None:
    """Take the write lock at the start, so that two writers wait for each other instead of failing."""
    reads = READING.items() <= connection.get_execution_options().items()
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

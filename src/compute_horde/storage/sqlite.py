"""SQLite in a thread, with one trip to it for each statement.

aiosqlite makes four: for the cursor, the statement, its rows and the cursor's end. Each costs two switches between
threads, which on a busy machine take longer than all that SQLite does. A transaction begins together with its
first statement.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import aiosqlite

BEGIN = "BEGIN IMMEDIATE"

Parameters = Any
"""What sqlite3 takes: a sequence, or a mapping."""


class Connection(aiosqlite.Connection):
    """aiosqlite's, with :class:`Cursor`, and without a trip for the end of what never began."""

    begins = False  # the next statement is the first of a transaction
    under_way = False  # a statement was not seen to its end: whoever waited for it was cancelled, or it failed

    def cursor(self) -> Any:
        """What SQLAlchemy asks of a cursor; not all of aiosqlite's."""
        return Cursor(self)

    async def commit(self) -> None:
        if self._has_begun():
            await super().commit()

    async def rollback(self) -> None:
        if self._has_begun():
            await super().rollback()  # behind a statement that is still under way

    def _has_begun(self) -> bool:
        begun = self.under_way or self._conn.in_transaction
        self.begins = self.under_way = False
        return begun

    async def run(self, work: Callable[..., None], *args: Any) -> None:
        """In the thread."""
        self.under_way = True
        await self._execute(work, *args)  # type: ignore[no-untyped-call] # SQLAlchemy, too, reaches this deep
        self.under_way = False


class Cursor:
    """One statement at a time; its rows are fetched with it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.arraysize = 1
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> "Cursor":
        return self

    async def execute(self, sql: str, parameters: Parameters = ()) -> "Cursor":
        return await self._run(sql, parameters, many=False)

    async def executemany(self, sql: str, parameters: Iterable[Parameters]) -> "Cursor":
        return await self._run(sql, parameters, many=True)

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Closed already, when the statement had run."""

    async def _run(self, sql: str, parameters: Any, *, many: bool) -> "Cursor":
        connection = self._connection
        if sql == BEGIN:
            connection.begins = True
        else:
            begins, connection.begins = connection.begins, False
            await connection.run(self._in_thread, sql, parameters, many, begins)
        return self

    def _in_thread(self, sql: str, parameters: Any, many: bool, begins: bool) -> None:
        raw = self._connection._conn.cursor()
        try:
            if begins:
                raw.execute(BEGIN)
            if many:
                raw.executemany(sql, parameters)
            else:
                raw.execute(sql, parameters)
            self._rows = raw.fetchall() if raw.description else []
            self.description, self.rowcount, self.lastrowid = raw.description, raw.rowcount, raw.lastrowid
        finally:
            raw.close()


async def connect(path: str) -> Connection:
    """A connection to the database in this file, which is made when it is not there."""
    connection = Connection(lambda: sqlite3.connect(path), iter_chunk_size=64)
    connection._thread.daemon = True  # as SQLAlchemy sets it: nobody waits for it at the interpreter's exit
    _ = await connection
    return connection

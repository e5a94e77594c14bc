"""Forgetting old rows in small steps, and keeping a database's size within bounds.

SQLite uses the room of deleted rows again, so a database with retention stops growing by itself. Files made with
``auto_vacuum=INCREMENTAL`` give room back to the disk as well (:func:`shrink`). PostgreSQL has its autovacuum.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import structlog
from sqlalchemy import ColumnElement, Delete, Select, delete, func, literal_column, select
from sqlalchemy.sql.schema import Column

from compute_horde.storage.database import Database

log = structlog.get_logger(__name__)

SelectIds: TypeAlias = Callable[[int], Select[Any]]
"""A query for the keys (one column) of at most so many rows that may go."""
DeleteIds: TypeAlias = Callable[[Sequence[Any]], Delete]
"""The statement that deletes these rows, as far as they still may go."""
Rule: TypeAlias = Callable[[], Awaitable[int]]
"""Deletes what is too old now; answers how many rows that were."""
Sleep: TypeAlias = Callable[[float], Awaitable[None]]

STEP, PAUSE_S = 100, 0.05
_INCREMENTAL = 2  # PRAGMA auto_vacuum


async def purge(
    database: Database,
    select_ids: SelectIds,
    delete_ids: DeleteIds,
    *,
    step: int = STEP,
    pause_s: float = PAUSE_S,
    sleep: Sleep = asyncio.sleep,
) -> int:
    """Delete what may go, ``step`` rows a transaction, with pauses in which others write. Answers how many.

    Safe to cancel, to run again, and to run at several replicas at once: each step is whole by itself.
    """
    deleted = 0
    while True:
        async with database.read() as connection:
            keys = (await connection.execute(select_ids(step))).scalars().all()
        if not keys:
            return deleted
        async with database.begin() as connection:
            gone = (await connection.execute(delete_ids(keys))).rowcount
        deleted += gone
        if not gone:  # others were quicker, or the rows may not go any more: look again next time
            return deleted
        await sleep(pause_s)


def by_key(key: Column[Any], condition: ColumnElement[bool]) -> tuple[SelectIds, DeleteIds]:
    """Both statements for the rows of ``key``'s table that meet the condition; ``key`` is its primary key.

    An index has to answer the condition: the first step would otherwise read the whole table.
    """
    return (
        lambda limit: select(key).where(condition).limit(limit),
        lambda keys: delete(key.table).where(key.in_(keys), condition),
    )


async def shrink(
    database: Database,
    *,
    step_pages: int = 100,
    keep_pages: int = 1000,
    pause_s: float = PAUSE_S,
    sleep: Sleep = asyncio.sleep,
) -> int:
    """Give free pages back to the disk, save some that the next rows will use. Answers how many.

    Does nothing on PostgreSQL, nor on a file that was not made for it: its free pages are used again all the same.
    """
    if database.dialect != "sqlite" or await _pragma(database, "auto_vacuum") != _INCREMENTAL:
        return 0
    spare = max(0, await _pragma(database, "freelist_count") - keep_pages)
    for given in range(0, spare, step_pages):
        async with database.begin() as connection:
            for _ in range(min(step_pages, spare - given)):  # Python's sqlite3 takes one step, which is one page
                await connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
        await sleep(pause_s)
    return spare


async def database_bytes(database: Database) -> int:
    """What the database takes on its disk, SQLite's write-ahead log apart."""
    if database.dialect == "sqlite":
        return await _pragma(database, "page_count") * await _pragma(database, "page_size")
    async with database.read() as connection:
        size = func.pg_database_size(literal_column("current_database()"))
        return int((await connection.execute(select(size))).scalar_one())


async def _pragma(database: Database, name: str) -> int:
    async with database.read() as connection:
        return int((await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one())


class Housekeeper:
    """Applies a service's rules again and again. A rule that fails is logged, and holds up no other."""

    def __init__(
        self,
        database: Database,
        rules: Mapping[str, Rule],
        *,
        every_s: float = 600,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """``every_s``: the pause between two rounds."""
        self._database, self._every, self._sleep = database, every_s, sleep
        self._rules: Mapping[str, Rule] = {**rules, "shrink": self._shrink}

    async def run(self) -> None:
        """For ever, until cancelled."""
        while True:
            await self.once()
            await self._sleep(self._every)

    async def once(self) -> dict[str, int]:
        """One round. How much went, by rule; those that failed are left out."""
        done: dict[str, int] = {}
        for name, rule in self._rules.items():
            try:
                done[name] = await rule()
            except Exception as error:  # a full disk, a database that is away: the next round tries again
                log.error("housekeeping failed", rule=name, error=type(error).__name__)
            else:
                log.debug("housekeeping", rule=name, gone=done[name])
        return done

    async def _shrink(self) -> int:
        return await shrink(self._database, sleep=self._sleep)

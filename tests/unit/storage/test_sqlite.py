"""SQLite in a thread: one trip for each statement, and transactions that hold."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from compute_horde.storage.database import Database
from compute_horde.storage.sqlite import Connection

TABLE = "CREATE TABLE number (value INTEGER PRIMARY KEY)"
INSERT = sa.text("INSERT INTO number VALUES (:value)")
COUNT = sa.text("SELECT count(*) FROM number")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/numbers.db"


class Counting(Connection):
    """``trips``: what went to the thread."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.trips: list[str] = []

    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self.trips.append(fn.__name__)
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call] # aiosqlite's


async def counting(folder: Path) -> Counting:
    connection = Counting(lambda: sqlite3.connect(folder / "x.db", isolation_level=None), 64)
    connection._thread.daemon = True
    _ = await connection
    connection.trips.clear()
    return connection


async def count(database: Database) -> int:
    async with database.begin() as connection:
        return int((await connection.execute(COUNT)).scalar_one())


async def test_a_transaction_makes_one_trip_for_each_statement_and_one_to_commit(tmp_path: Path) -> None:
    connection = await counting(tmp_path)
    trips = connection.trips
    for sql in ("BEGIN IMMEDIATE", TABLE, "INSERT INTO number VALUES (7)"):
        await connection.cursor().execute(sql)
    await connection.commit()
    assert len(trips) == 3
    cursor = connection.cursor()
    await cursor.execute("SELECT value FROM number")
    assert (await cursor.fetchall(), await cursor.fetchall()) == ([(7,)], [])
    assert cursor.description[0][0] == "value"
    await connection.cursor().execute("BEGIN IMMEDIATE")
    await connection.rollback()
    await connection.commit()
    assert len(trips) == 4
    await connection.close()


async def insert(database: Database, *values: int) -> None:
    async with database.begin() as connection:
        for value in values:
            await connection.execute(INSERT, {"value": value})


async def test_what_fails_is_rolled_back_and_the_connection_goes_on(url: str) -> None:
    database = Database(url)
    async with database.begin() as connection:
        await connection.execute(sa.text(TABLE))
        await connection.execute(INSERT, [{"value": 1}, {"value": 2}])
    with pytest.raises(IntegrityError):
        await insert(database, 3, 1)
    assert await count(database) == 2
    async with database.begin():
        pass  # nothing began, so there is nothing to end
    await database.close()


async def test_a_statement_whose_waiter_was_cancelled_is_rolled_back(tmp_path: Path) -> None:
    connection = await counting(tmp_path)
    await connection.cursor().execute(TABLE)
    await connection.cursor().execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(connection.cursor().execute("INSERT INTO number VALUES (1)"))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await connection.rollback()
    cursor = await connection.cursor().execute("SELECT count(*) FROM number")
    assert (await cursor.fetchall(), connection.in_transaction) == ([(0,)], False)
    await connection.close()


async def test_two_writers_wait_for_each_other(url: str) -> None:
    database = Database(url)
    async with database.begin() as connection:
        await connection.execute(sa.text(TABLE))

    async def write(value: int) -> None:
        async with database.begin() as connection:
            seen = (await connection.execute(COUNT)).scalar_one()
            await connection.execute(INSERT, {"value": value})
            assert (await connection.execute(COUNT)).scalar_one() == seen + 1

    await asyncio.gather(*(write(value) for value in range(20)))
    assert await count(database) == 20
    await database.close()

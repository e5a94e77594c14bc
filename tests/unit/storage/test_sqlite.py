"""SQLite in the loop's thread: transactions that hold, readers beside a writer, writers one by one."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from compute_horde.storage.database import Database
from compute_horde.storage.sqlite import connect

TABLE = sa.text("CREATE TABLE number (value INTEGER PRIMARY KEY)")
INSERT = sa.text("INSERT INTO number VALUES (:value)")
COUNT = sa.text("SELECT count(*) FROM number")


@pytest.fixture(params=["file", "memory"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    where = f"/{tmp_path}/numbers.db" if request.param == "file" else "/:memory:"
    made = Database(f"sqlite+aiosqlite://{where}")
    async with made.begin() as connection:
        await connection.execute(TABLE)
    return made


async def count(database: Database) -> int:
    async with database.read() as connection:
        return int((await connection.execute(COUNT)).scalar_one())


async def insert(database: Database, *values: int) -> None:
    async with database.begin() as connection:
        for value in values:
            await connection.execute(INSERT, {"value": value})


async def test_what_fails_is_rolled_back_and_the_connection_goes_on(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(INSERT, [{"value": 1}, {"value": 2}])
    with pytest.raises(IntegrityError):
        await insert(database, 3, 1)
    assert await count(database) == 2
    async with database.begin():
        pass
    await insert(database, 3)
    assert await count(database) == 3
    await database.close()


async def test_a_transaction_that_is_cancelled_leaves_nothing(database: Database) -> None:
    begun = asyncio.Event()

    async def write() -> None:
        async with database.begin() as connection:
            await connection.execute(INSERT, {"value": 1})
            begun.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await count(database) == 0
    await insert(database, 1)
    assert await count(database) == 1
    await database.close()


async def test_writers_go_one_by_one(database: Database) -> None:
    async def write(value: int) -> None:
        async with database.begin() as connection:
            seen = (await connection.execute(COUNT)).scalar_one()
            await asyncio.sleep(0)
            await connection.execute(INSERT, {"value": value})
            assert (await connection.execute(COUNT)).scalar_one() == seen + 1

    await asyncio.gather(*(write(value) for value in range(20)))
    assert await count(database) == 20
    await database.close()


async def test_a_reader_does_not_wait_for_a_writer_and_sees_what_was_committed(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/numbers.db")
    async with database.begin() as connection:
        await connection.execute(TABLE)
    async with database.begin() as connection:
        await connection.execute(INSERT, {"value": 1})
        assert await count(database) == 0
    assert await count(database) == 1
    await database.close()


async def test_a_connection_closes_once_and_then_says_so(tmp_path: Path) -> None:
    connection = await connect(str(tmp_path / "x.db"))
    cursor = await connection.cursor().execute("SELECT 7 AS seven")
    assert (await cursor.fetchall(), cursor.description[0][0]) == ([(7,)], "seven")
    await cursor.close()
    await connection.close()
    connection.stop()
    with pytest.raises(ValueError, match="no active connection"):
        connection.cursor()

"""Transactions, migrations of every service both ways, and the bus."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import text

from compute_horde.storage.bus import LocalBus, make_bus
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate, unmigrate
from compute_horde.validator.tables import metadata

SERVICES = ["facilitator", "miner", "validator"]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite+aiosqlite:///{tmp_path}/test.db")
    yield made
    await made.close()


async def tables(database: Database) -> set[str]:
    async with database.begin() as connection:
        names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    return set(names) - {"alembic_version"}


@pytest.mark.parametrize("service", SERVICES)
async def test_a_schema_goes_up_and_down_and_up_again(database: Database, service: str) -> None:
    await migrate(database, service)
    there = await tables(database)
    assert there
    await migrate(database, service)
    await unmigrate(database, service)
    assert await tables(database) == set()
    await migrate(database, service)
    assert await tables(database) == there


async def test_the_validators_migrations_make_the_tables_that_it_uses(database: Database) -> None:
    await migrate(database, "validator")
    async with database.begin() as connection:
        inspected = await connection.run_sync(
            lambda sync: {
                table: {column["name"]: column["nullable"] for column in sa.inspect(sync).get_columns(table)}
                for table in sa.inspect(sync).get_table_names()
                if table != "alembic_version"
            }
        )
    expected = {t.name: {c.name: bool(c.nullable) for c in t.columns} for t in metadata.sorted_tables}
    assert inspected == expected


async def test_a_transaction_is_whole_or_nothing(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER)"))

    async def half() -> None:
        async with database.begin() as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await half()
    async with database.begin() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM t"))).scalar_one() == 0


async def test_two_writers_wait_for_each_other(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER)"))

    async def add() -> None:
        async with database.begin() as connection:
            top = (await connection.execute(text("SELECT coalesce(max(n), 0) FROM t"))).scalar_one()
            await connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": top + 1})

    await asyncio.gather(*(add() for _ in range(10)))
    async with database.begin() as connection:
        assert (await connection.execute(text("SELECT max(n) FROM t"))).scalar_one() == 10


async def test_a_database_in_memory_keeps_its_tables() -> None:
    database = Database("sqlite+aiosqlite:///:memory:")
    await migrate(database, "validator")
    assert "jobs" in await tables(database)
    await database.close()


async def test_the_bus_wakes_whoever_subscribed(database: Database) -> None:
    bus = make_bus(database)
    assert isinstance(bus, LocalBus)
    await bus.start()
    bus.notify("nobody listens")
    with bus.subscribe("job") as first, bus.subscribe("job") as second:
        bus.notify("other")
        assert not first.is_set()
        bus.notify("job")
        assert first.is_set()
        assert second.is_set()
    bus.notify("job")
    await bus.close()

"""Every service's migrations on both databases: over rows of each revision, back, on a live system."""

import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from compute_horde.facilitator import tables as facilitator
from compute_horde.miner import tables as miner
from compute_horde.storage import migrate as migrations
from compute_horde.storage.database import Database
from compute_horde.storage.errors import DatabaseMisconfigured, DatabaseUnavailable
from compute_horde.storage.migrate import migrate, unmigrate
from compute_horde.validator import tables as validator

METADATA = {"facilitator": facilitator.metadata, "validator": validator.metadata, "miner": miner.metadata}
SERVICES = tuple(METADATA)
Rows = dict[str, list[dict[str, Any]]]


def revisions(service: str) -> list[str]:
    """The names of a service's revisions, oldest first."""
    folder = files("compute_horde.storage") / "migrations" / service
    return sorted(entry.name[:4] for entry in folder.iterdir() if entry.name[:4].isdigit())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    yield made
    await made.close()


def reflect(connection: Connection) -> sa.MetaData:
    found = sa.MetaData()
    found.reflect(connection)
    found.remove(found.tables["alembic_version"])
    return found


def value(column: sa.Column[Any], step: int) -> Any:
    """One that no other step has, unless the type has only two."""
    if isinstance(column.type, sa.Boolean):
        return bool(step % 2)
    if isinstance(column.type, sa.String):
        return f"{step}: é {column.name}"[: column.type.length or 100]
    return step + 0.5 if isinstance(column.type, sa.Float) else step


def fill(connection: Connection, step: int) -> None:
    """A row in every table, with a value in every column; references hold, since the names are the same."""
    for table in reflect(connection).sorted_tables:
        row = {column.name: value(column, step) for column in table.columns}
        for key in table.foreign_keys:
            row[key.parent.name] = value(key.column, step)
        if table.autoincrement_column is not None:
            del row[table.autoincrement_column.name]  # numbers go on where they were
        connection.execute(table.insert().values(row))


def rows(connection: Connection) -> Rows:
    found: Rows = {}
    for table in reflect(connection).sorted_tables:
        query = sa.select(table).order_by(*table.primary_key)
        found[table.name] = [dict(row) for row in connection.execute(query).mappings()]
    return found


def assert_kept(before: Rows, after: Rows) -> None:
    """Nothing is lost of what both schemas know."""
    for table, old in before.items():
        if table not in after:
            continue
        assert len(after[table]) == len(old)
        for was, now in zip(old, after[table], strict=True):
            both = was.keys() & now.keys()
            assert {name: now[name] for name in both} == {name: was[name] for name in both}


async def sync(database: Database, function: Any, *arguments: Any) -> Any:
    async with database.begin() as connection:
        return await connection.run_sync(function, *arguments)


@pytest.mark.parametrize("service", SERVICES)
async def test_up_step_by_step_over_rows_and_down_again(database: Database, service: str) -> None:
    before: Rows = {}
    for step, revision in enumerate(revisions(service), 1):
        await migrate(database, service, revision)
        assert_kept(before, await sync(database, rows))
        await sync(database, fill, step)
        before = await sync(database, rows)
    for revision in [*revisions(service)[-2::-1], "base"]:
        await unmigrate(database, service, revision)
        after = await sync(database, rows)
        assert_kept(before, after)
        before = after
    assert before == {}
    await migrate(database, service)
    await sync(database, fill, 1)


@pytest.mark.parametrize("service", SERVICES)
async def test_the_schema_is_the_one_that_the_service_uses(database: Database, service: str) -> None:
    await migrate(database, service)

    def differences(connection: Connection) -> list[Any]:
        """Of tables and columns; indexes and constraints are the migrations' own."""
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, METADATA[service])
        return [one for one in found if isinstance(one, list) or one[0].endswith(("_table", "_column"))]

    assert await sync(database, differences) == []


@pytest.mark.parametrize("service", SERVICES)
async def test_processes_that_start_together(database_url: str, service: str) -> None:
    processes = [Database(database_url) for _ in range(4)]
    await asyncio.gather(*(migrate(process, service) for process in processes))
    await sync(processes[0], fill, 1)
    for process in processes:
        await process.close()


async def test_a_database_of_another_service_is_refused(database: Database) -> None:
    await migrate(database, "validator")
    for other in ("facilitator", "miner"):
        with pytest.raises(DatabaseMisconfigured, match=f"not the {other}'s"):
            await migrate(database, other)
    await migrate(database, "validator")


async def test_a_schema_of_a_later_release_is_used_as_it_is(database: Database) -> None:
    await migrate(database, "miner")
    async with database.begin() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    await migrate(database, "miner")
    async with database.read() as connection:
        version = await connection.execute(sa.text("SELECT version_num FROM alembic_version"))
        assert version.scalar_one() == "9999"


async def test_a_table_that_is_in_use_is_changed_as_soon_as_it_is_free(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migrations, "PAUSE_S", 0.02)
    database = Database(postgres_url)
    await migrate(database, "miner", "0001")
    async with database.read() as connection:
        await connection.execute(sa.text("SELECT count(*) FROM jobs"))
        changing = asyncio.create_task(migrate(database, "miner"))
        await asyncio.sleep(0.3)
        async with database.begin() as writer:  # goes on meanwhile
            await writer.execute(sa.text("UPDATE jobs SET state = 'x'"))
        assert not changing.done()
    await changing
    monkeypatch.setattr(migrations, "ATTEMPTS", 2)
    async with database.read() as connection:
        await connection.execute(sa.text("SELECT count(*) FROM jobs"))
        await unmigrated_while_in_use(database)
    await database.close()


async def unmigrated_while_in_use(database: Database) -> None:
    """A migration gives up in the end."""
    async with database.begin() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(DatabaseUnavailable, match="lock timeout"):
        await migrate(database, "miner", "0002")


async def test_a_server_that_is_not_there() -> None:
    database = Database("postgresql://horde@127.0.0.1:1/nothing")
    with pytest.raises(DatabaseUnavailable, match="127"):
        await migrate(database, "miner")

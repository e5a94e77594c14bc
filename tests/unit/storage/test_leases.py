"""Leases, owners, names that are held: on SQLite, in a file and in memory."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from compute_horde.storage.clock import now
from compute_horde.storage.database import Database
from compute_horde.storage.errors import AlreadyRunning, DatabaseUnavailable
from compute_horde.storage.holds import FileHolds, make_holds
from compute_horde.storage.leases import Owners, claim, is_free, is_held, lease_columns, release, renew
from compute_horde.storage.order import one_by_one
from compute_horde.storage.sole import Sole

metadata = sa.MetaData()
tasks = sa.Table("tasks", metadata, sa.Column("id", sa.Integer, primary_key=True), *lease_columns())


@pytest.fixture(params=["file", "memory"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/t.db" if request.param == "file" else "sqlite:///:memory:")
    async with made.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(tasks.insert(), [{"id": number} for number in range(1, 6)])
    yield made
    await made.close()


async def run(database: Database, statement: sa.sql.dml.UpdateBase) -> int:
    async with database.begin() as connection:
        return int((await connection.execute(statement)).rowcount)


async def take(database: Database, owners: Owners, *, limit: int = 5, ttl_s: float = 30) -> tuple[str, list[int]]:
    holder, dead = owners.holder(), await owners.dead(tasks)
    statement = claim(tasks, holder, ttl_s, dead=dead, order_by=[tasks.c.id], limit=limit)
    async with database.begin() as connection:
        return holder, sorted(row.id for row in await connection.execute(statement))


async def test_the_databases_clock(database: Database) -> None:
    assert abs(await database.now() - time.time()) < 1
    async with database.read() as connection:
        assert (await connection.execute(sa.select(now() + 10 > now()))).scalar_one()


async def test_rows_are_claimed_once_renewed_and_released(database: Database) -> None:
    ours, theirs = Owners(database), Owners(database)
    assert await ours.start() == ours.token
    await theirs.start()
    first, got = await take(database, ours, limit=2)
    second, rest = await take(database, theirs)
    assert (got, rest) == ([1, 2], [3, 4, 5])
    assert await run(database, renew(tasks, first, 60)) == 2
    assert await run(database, renew(tasks, second, 60, tasks.c.id == 1)) == 0
    assert await run(database, release(tasks, first, tasks.c.id == 1)) == 1
    async with database.read() as connection:
        free = (await connection.execute(sa.select(tasks.c.id).where(is_free(tasks)))).scalars().all()
        held = (await connection.execute(sa.select(tasks.c.id).where(is_held(tasks, first)))).scalars().all()
    assert (free, held) == ([1], [2])
    await ours.close()
    await theirs.close()


async def test_a_lease_whose_time_is_over_stays_its_holders_until_it_is_taken(database: Database) -> None:
    ours, theirs = Owners(database), Owners(database)
    await ours.start()
    await theirs.start()
    holder, got = await take(database, ours, limit=1, ttl_s=-1)
    assert got == [1]
    assert await run(database, renew(tasks, holder, -1)) == 1
    assert (await take(database, theirs, limit=1))[1] == [1]
    assert await run(database, renew(tasks, holder, 30)) == 0
    await ours.close()
    await theirs.close()


async def test_what_a_dead_owner_held_is_free_at_once(database: Database) -> None:
    ours, theirs = Owners(database), Owners(database)
    await ours.start()
    await theirs.start()
    holder, _ = await take(database, theirs)
    assert await ours.dead(tasks) == frozenset()
    assert await ours.is_alive(holder)
    await theirs.close()
    await theirs.close()
    assert await ours.dead(tasks) == {holder}
    assert not await ours.is_alive(theirs.token)
    assert (await take(database, ours))[1] == [1, 2, 3, 4, 5]
    assert await ours.is_alive(ours.token)
    await ours.close()


async def test_two_claims_of_one_process_are_told_apart(database: Database) -> None:
    owners = Owners(database)
    await owners.start()
    before, _ = await take(database, owners, limit=1, ttl_s=-1)
    after, got = await take(database, owners, limit=1)
    assert got == [1]
    assert before != after
    assert len(after) <= 64
    assert await run(database, release(tasks, before)) == 0
    await owners.close()


async def test_only_one_service_runs(database: Database) -> None:
    first, second = Sole(database, "miner"), Sole(database, "miner")
    await first.start()
    with pytest.raises(AlreadyRunning, match=r"another miner runs on the database sqlite:///"):
        await second.start(patience_s=0)
    other = Sole(database, "validator")
    await other.start(patience_s=0)
    waiting = asyncio.create_task(second.start())
    await asyncio.sleep(0)
    await first.close()
    await waiting
    await second.close()
    await other.close()


async def test_a_name_is_taken_twice_by_the_same(database: Database) -> None:
    holds = make_holds(database)
    assert await holds.take("x")
    assert await holds.take("x")
    assert await holds.free(["x", "y"]) == {"y"}
    await holds.close()
    assert await make_holds(database).free(["x"]) == {"x"}


async def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    holds = FileHolds(tmp_path / "t.db")
    assert await holds.take("mine")
    left = tmp_path / "t.db.locks" / "left"
    left.touch()
    assert await holds.free(["left"]) == {"left"}
    assert os.listdir(left.parent) == ["mine"]
    await holds.close()
    assert os.listdir(left.parent) == []


async def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    holds = FileHolds(tmp_path / "none" / "t.db")
    with pytest.raises(DatabaseUnavailable, match="none"):
        await holds.take("x")


async def test_sqlite_needs_no_order(database: Database) -> None:
    async with database.begin() as connection:
        await one_by_one(connection, "events")


async def test_a_name_that_its_last_holder_removes_at_this_moment(tmp_path: Path) -> None:
    """Whoever has opened the file meanwhile locks one that is not there any more, and opens it anew."""
    file = tmp_path / "t.db"

    async def fight(holds: FileHolds) -> int:
        taken = 0
        for _ in range(300):
            if await asyncio.to_thread(asyncio.run, holds.take("x")):
                taken += 1
                assert not await FileHolds(file).take("x")
                await asyncio.to_thread(asyncio.run, holds.close())
        return taken

    assert all(await asyncio.gather(*(fight(FileHolds(file)) for _ in range(3))))

"""Leases between real processes, on both databases: what a killed one held is free at once."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import sqlalchemy as sa
from tests.integration.storage.waits import until
from tests.postgres import running_postgres

from compute_horde.storage.database import Database
from compute_horde.storage.errors import AlreadyRunning, DatabaseUnavailable
from compute_horde.storage.holds import PostgresHolds, make_holds
from compute_horde.storage.leases import Owners, claim, is_free, lease_columns, release, renew
from compute_horde.storage.session import Session
from compute_horde.storage.sole import Sole

metadata = sa.MetaData()
tasks = sa.Table("tasks", metadata, sa.Column("id", sa.Integer, primary_key=True), *lease_columns())

PROCESS = """
import asyncio, sys
import sqlalchemy as sa
from compute_horde.storage.database import Database
from compute_horde.storage.leases import Owners, claim, lease_columns
from compute_horde.storage.sole import Sole

tasks = sa.Table("tasks", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *lease_columns())

async def main():
    database = Database(sys.argv[1])
    owners, sole = Owners(database), Sole(database, "miner")
    await owners.start()
    await sole.start()
    async with database.begin() as connection:
        await connection.execute(claim(tasks, owners.holder(), 3600, order_by=[tasks.c.id], limit=3))
    print(owners.token, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    async with made.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(tasks.insert(), [{"id": number} for number in range(1, 6)])
    yield made
    await made.close()


@contextmanager
def another_process(url: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """One that holds tasks 1 to 3 and is the sole miner; and its token."""
    process = subprocess.Popen([sys.executable, "-c", PROCESS, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def take(database: Database, owners: Owners, limit: int = 5) -> list[int]:
    dead = await owners.dead(tasks)
    statement = claim(tasks, owners.holder(), 30, dead=dead, order_by=[tasks.c.id], limit=limit)
    async with database.begin() as connection:
        return sorted(row.id for row in await connection.execute(statement))


async def test_what_a_killed_process_held(database: Database) -> None:
    owners = Owners(database)
    await owners.start()
    with another_process(database.url) as (process, token):
        assert await owners.is_alive(token)
        assert await take(database, owners) == [4, 5]
        with pytest.raises(AlreadyRunning):
            await Sole(database, "miner").start(patience_s=0.2)
        process.kill()
        process.wait()
        await until(partial(is_dead, owners, token), within_s=2)
        assert await take(database, owners) == [1, 2, 3]
        sole = Sole(database, "miner")
        await sole.start()
        await sole.close()
    await owners.close()


async def test_many_that_claim_at_once_get_each_row_once(database: Database) -> None:
    many = [Owners(database) for _ in range(5)]
    for owners in many:
        await owners.start()
    got = await asyncio.gather(*(take(database, owners, limit=2) for owners in many))
    taken = sorted(number for numbers in got for number in numbers)
    assert len(taken) == len(set(taken))
    taken += await take(database, many[0])  # what all of them passed over
    assert sorted(taken) == [1, 2, 3, 4, 5]
    for owners in many:
        await owners.close()


async def test_a_lease_is_renewed_released_and_runs_out(database: Database) -> None:
    owners = Owners(database)
    await owners.start()
    holder = owners.holder()

    async def run(statement: sa.Update) -> int:
        async with database.begin() as connection:
            return int((await connection.execute(statement)).rowcount)

    async with database.begin() as connection:
        await connection.execute(claim(tasks, holder, -1))
    assert await run(renew(tasks, holder, 60, tasks.c.id <= 2)) == 2
    assert await run(release(tasks, holder, tasks.c.id == 5)) == 1
    async with database.read() as connection:
        free = await connection.execute(sa.select(tasks.c.id).where(is_free(tasks)).order_by(tasks.c.id))
        assert free.scalars().all() == [3, 4, 5]
    await owners.close()


async def test_a_name_is_held_by_one(database: Database) -> None:
    first, second = make_holds(database), make_holds(database)
    assert [await first.take("x"), await first.take("x"), await second.take("x")] == [True, True, False]
    assert await second.free(["x", "y"]) == {"y"}
    await first.close()
    assert await second.take("x")
    await second.close()


async def test_an_owner_is_alive_again_after_the_server_was_away() -> None:
    with running_postgres() as server:
        database = Database(server.url(server.fresh()))
        mine, theirs = Owners(database, PostgresHolds(database, check_s=0.2)), Owners(database)
        await mine.start()
        await theirs.start()
        assert await theirs.is_alive(mine.token)
        await asyncio.to_thread(server.kill)
        with pytest.raises(DatabaseUnavailable):
            await theirs.is_alive(mine.token)
        server.start()
        await until(partial(is_alive, theirs, mine.token))
        await mine.close()
        await theirs.close()
        await database.close()


async def is_dead(owners: Owners, token: str) -> bool:
    return not await owners.is_alive(token)


async def is_alive(owners: Owners, token: str) -> bool:
    try:
        return await owners.is_alive(token)
    except DatabaseUnavailable:
        return False


async def test_a_name_whose_old_session_is_not_dead_yet_is_taken_later(postgres_url: str) -> None:
    database = Database(postgres_url)
    holds, old = PostgresHolds(database, check_s=0.05), PostgresHolds(database)
    assert await holds.take("x")
    async with holds.session.use() as connection:
        await connection.execute("SELECT pg_advisory_unlock_all()")
    assert await old.take("x")  # as the session before, which the server has not given up
    await cut(holds.session, old)
    await until(partial(is_lost, holds))
    await old.close()
    await until(partial(is_held, holds))
    await holds.close()
    await database.close()


async def is_lost(holds: PostgresHolds) -> bool:
    return not await is_held(holds)


async def is_held(holds: PostgresHolds) -> bool:
    try:
        return await holds.take("x")
    except DatabaseUnavailable:
        return False


async def cut(session: Session, by: PostgresHolds) -> None:
    """End a session from the server's side."""
    async with session.use() as connection:
        pid = connection.get_server_pid()
    async with by.session.use() as connection:
        await connection.execute("SELECT pg_terminate_backend($1)", pid)

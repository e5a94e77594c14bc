"""Transactions on both databases; and a PostgreSQL that stops, hangs, starts anew or is full."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from tests.postgres import Postgres, running_postgres

from compute_horde.storage import postgres as driver
from compute_horde.storage.database import Database
from compute_horde.storage.errors import DatabaseFull, DatabaseMisconfigured, DatabaseUnavailable, Unstorable
from compute_horde.storage.order import one_by_one

CREATE = sa.text("CREATE TABLE number (value INTEGER PRIMARY KEY, name VARCHAR(5))")
INSERT = sa.text("INSERT INTO number VALUES (:value, 'x')")
COUNT = sa.text("SELECT count(*) FROM number")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    async with made.begin() as connection:
        await connection.execute(CREATE)
    yield made
    await made.close()


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server of the test's own, to be stopped."""
    with running_postgres() as started:
        yield started


async def count(database: Database) -> int:
    async with database.read() as connection:
        return int((await connection.execute(COUNT)).scalar_one())


async def insert(database: Database, *values: int) -> None:
    async with database.begin() as connection:
        for value in values:
            await connection.execute(INSERT, {"value": value})


async def insert_and(database: Database, then: Callable[[], object], *more: sa.TextClause) -> None:
    """One transaction: insert 4, do something, and perhaps more statements."""
    async with database.begin() as connection:
        await connection.execute(INSERT, {"value": 4})
        then()
        for statement in more:
            await connection.execute(statement, {"value": 5})


async def test_a_transaction_is_whole_or_nothing(database: Database) -> None:
    await insert(database, 1, 2)
    with pytest.raises(IntegrityError):
        await insert(database, 3, 1)
    with pytest.raises(ZeroDivisionError):
        await insert_and(database, lambda: 1 // 0)
    assert await count(database) == 2


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
    await asyncio.gather(writing, return_exceptions=True)
    await insert(database, 1)
    assert await count(database) == 1


async def test_a_reader_sees_one_moment(database: Database) -> None:
    async with database.read() as connection:
        before = (await connection.execute(COUNT)).scalar_one()
        await insert(database, 1)
        assert (await connection.execute(COUNT)).scalar_one() == before
    assert await count(database) == 1


async def test_one_of_many_that_change_a_row_at_once_succeeds(database: Database) -> None:
    await insert(database, 1)
    change = sa.text("UPDATE number SET name = :new WHERE value = 1 AND name = 'x'")

    async def attempt(number: int) -> int:
        async with database.begin() as connection:
            (await connection.execute(COUNT)).scalar_one()
            return int((await connection.execute(change, {"new": str(number)})).rowcount)

    assert sum(await asyncio.gather(*(attempt(number) for number in range(10)))) == 1


async def test_the_clock(database: Database) -> None:
    first, again = await database.now(), await database.now()
    assert abs(first - time.time()) < 1
    assert first <= again


async def test_numbers_are_in_the_order_of_the_commits(postgres_url: str) -> None:
    database = Database(postgres_url)
    async with database.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE event (id BIGSERIAL PRIMARY KEY)"))
    seen: list[int] = []

    async def write(number: int) -> None:
        async with database.begin() as connection:
            await one_by_one(connection, "user")
            await connection.execute(sa.text("INSERT INTO event DEFAULT VALUES"))
            await asyncio.sleep(0.001 * (number % 3))

    async def follow() -> None:
        while len(seen) < 30:
            async with database.read() as connection:
                behind = sa.text("SELECT id FROM event WHERE id > :last ORDER BY id")
                seen.extend((await connection.execute(behind, {"last": seen[-1] if seen else 0})).scalars())

    async with asyncio.timeout(20):
        await asyncio.gather(follow(), *(write(number) for number in range(30)))
    assert seen == list(range(1, 31))
    await database.close()


@pytest.mark.parametrize("value", ["a\0b", "too long"])
async def test_what_postgresql_cannot_hold(postgres_url: str, value: str) -> None:
    database = Database(postgres_url)
    async with database.begin() as connection:
        await connection.execute(CREATE)
    with pytest.raises(Unstorable):
        async with database.begin() as connection:
            await connection.execute(sa.text("INSERT INTO number VALUES (1, :name)"), {"name": value})
    with pytest.raises(Unstorable):
        await insert(database, 2**40)
    await insert(database, 1)
    await database.close()


async def alter(url: str, statement: str) -> None:
    """As another process does."""
    database = Database(url)
    async with database.begin() as connection:
        await connection.execute(sa.text(statement))
    await database.close()


async def test_statements_stay_good_over_a_migration(postgres_url: str) -> None:
    database = Database(postgres_url)
    query = sa.text("SELECT value, name FROM number")
    async with database.begin() as connection:
        await connection.execute(CREATE)
        await connection.execute(query)
    await alter(postgres_url, "ALTER TABLE number ADD COLUMN more INTEGER")
    await alter(postgres_url, "CREATE INDEX more ON number (more)")
    async with database.read() as connection:
        assert (await connection.execute(query)).all() == []
    await alter(postgres_url, "ALTER TABLE number ALTER COLUMN value TYPE BIGINT")
    with pytest.raises(DatabaseUnavailable):  # of another shape: once, and then prepared anew
        async with database.read() as connection:
            await connection.execute(query)
    async with database.read() as connection:
        assert (await connection.execute(query)).all() == []
    await database.close()


async def test_a_server_that_starts_anew_is_used_again_at_once(server: Postgres) -> None:
    database = Database(server.url(server.fresh()))
    async with database.begin() as connection:
        await connection.execute(CREATE)
    await asyncio.gather(*(count(database) for _ in range(5)))
    for end in (server.stop, server.kill):
        await asyncio.to_thread(end)
        with pytest.raises(DatabaseUnavailable):
            await count(database)
        with pytest.raises(DatabaseUnavailable, match="postgresql://horde@127"):
            await count(database)
        server.start()
        await asyncio.gather(*(count(database) for _ in range(5)))
    await database.close()


async def test_a_server_that_stops_in_a_transaction(server: Postgres) -> None:
    database = Database(server.url(server.fresh()))
    async with database.begin() as connection:
        await connection.execute(CREATE)
    await database.settled()

    async def cut(statements: int) -> None:
        async with database.begin() as connection:
            await connection.execute(INSERT, {"value": 1})
            await asyncio.to_thread(server.kill)
            for _ in range(statements):
                await connection.execute(INSERT, {"value": 2})

    for statements in (0, 1):  # lost in the commit, and before
        with pytest.raises(DatabaseUnavailable):
            await cut(statements)
        server.start()
        assert await count(database) == 0
    await database.close()


async def test_a_server_that_hangs_holds_up_nobody_for_ever(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "PING_TIMEOUT_S", 0.3)
    monkeypatch.setattr(driver, "CONNECT_TIMEOUT_S", 0.3)
    database = Database(server.url(server.fresh()), command_timeout_s=0.5)
    async with database.begin() as connection:
        await connection.execute(CREATE)
    started = time.monotonic()
    async with asyncio.timeout(20):
        with pytest.raises(DatabaseUnavailable):  # in the middle of a transaction
            await insert_and(database, server.pause, INSERT)
        with pytest.raises(DatabaseUnavailable):  # a new connection
            await count(database)
    assert time.monotonic() - started < 10
    server.resume()
    assert await count(database) == 0
    with pytest.raises(DatabaseUnavailable):  # in the commit
        await insert_and(database, server.pause)
    server.resume()
    assert await count(database) in (0, 1)
    monkeypatch.setattr(driver, "IDLE_S", 0)
    await count(database)
    server.pause()
    with pytest.raises(DatabaseUnavailable):  # a pooled connection that rested
        await count(database)
    server.resume()
    await count(database)
    await database.close()


async def test_a_pool_that_is_used_up(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POOL_SIZE", 1), ("POOL_OVERFLOW", 0), ("POOL_TIMEOUT_S", 0.1)):
        monkeypatch.setattr(driver, name, value)
    database = Database(postgres_url)
    async with database.read():
        with pytest.raises(DatabaseUnavailable, match="in time"):
            await database.now()
    await database.now()
    await database.close()


async def test_logins_that_are_refused(postgres: Postgres) -> None:
    for url in (
        postgres.url("nowhere"),
        postgres.url("postgres").replace("horde@", "nobody@"),
        postgres.url("postgres") + "?sslmode=nonsense",
        postgres.url("postgres") + "?nonsense=1",
    ):
        with pytest.raises((DatabaseMisconfigured, DatabaseUnavailable), match="postgresql://"):
            await Database(url).now()


async def test_options_of_the_url_reach_the_server(postgres_url: str, postgres: Postgres) -> None:
    database = Database(f"{postgres_url}?synchronous_commit=off")
    async with database.read() as connection:
        assert (await connection.execute(sa.text("SHOW synchronous_commit"))).scalar_one() == "off"
    await database.close()
    by_socket = Database(f"postgresql://horde@/postgres?host={postgres.socket_folder}&port={postgres.port}")
    assert await by_socket.now() > 0
    await by_socket.close()


async def test_a_full_disk(postgres_url: str) -> None:
    database = Database(postgres_url)
    with pytest.raises(DatabaseFull):
        async with database.begin() as connection:
            await connection.execute(sa.text("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$"))
    await database.close()

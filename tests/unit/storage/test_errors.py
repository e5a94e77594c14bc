"""A driver's exceptions become ours, once."""

import sqlite3
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from compute_horde.storage.database import Database
from compute_horde.storage.errors import (
    DatabaseFull,
    DatabaseMisconfigured,
    DatabaseUnavailable,
    StorageError,
    Unstorable,
)
from compute_horde.storage.translating import translated


@pytest.fixture
async def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path}/t.db")
    async with made.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE t (n INTEGER PRIMARY KEY, blob BLOB)"))
    return made


async def test_a_full_disk(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(sa.text("PRAGMA max_page_count = 20"))
    with pytest.raises(DatabaseFull, match="full") as full:
        async with database.begin() as connection:
            await connection.execute(sa.text("INSERT INTO t VALUES (1, zeroblob(1000000))"))
    assert full.value.code == str(sqlite3.SQLITE_FULL)
    async with database.begin() as connection:
        await connection.execute(sa.text("INSERT INTO t VALUES (1, zeroblob(10))"))
    await database.close()


async def test_a_lock_that_another_process_keeps(database: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
    async with database.begin() as connection:
        await connection.execute(sa.text("PRAGMA busy_timeout = 1"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="locked"):
        async with database.begin():
            pass
    other.rollback()
    other.close()
    async with database.begin():
        pass
    await database.close()


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/none/t.db")
    with pytest.raises(DatabaseUnavailable, match="unable to open"):
        async with database.read():
            pass


async def test_what_is_an_answer_stays_as_it_is(database: Database) -> None:
    async def twice() -> None:
        async with database.begin() as connection:
            for _ in range(2):
                await connection.execute(sa.text("INSERT INTO t VALUES (1, :secret)"), {"secret": b"sEcret"})

    with pytest.raises(IntegrityError) as violated:
        await twice()
    assert "sEcret" not in str(violated.value)
    with pytest.raises(OperationalError, match="no such table"):
        async with database.read() as connection:
            await connection.execute(sa.text("SELECT * FROM nowhere"))
    await database.close()


async def test_a_time_out_within_a_transaction(database: Database) -> None:
    async def write() -> None:
        async with database.begin() as connection:
            await connection.execute(sa.text("INSERT INTO t VALUES (1, NULL)"))
            raise TimeoutError

    with pytest.raises(DatabaseUnavailable, match="in time"):
        await write()
    async with database.read() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM t"))).scalar_one() == 0
    await database.close()


def of_postgresql(sqlstate: str) -> BaseException:
    """As asyncpg raises it."""
    made: BaseException = asyncpg.PostgresError.new({"C": sqlstate, "M": "the text"})
    return made


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("53100", DatabaseFull),
        ("53300", DatabaseUnavailable),
        ("57P01", DatabaseUnavailable),
        ("08006", DatabaseUnavailable),
        ("40P01", DatabaseUnavailable),
        ("55P03", DatabaseUnavailable),
        ("28P01", DatabaseMisconfigured),
        ("3D000", DatabaseMisconfigured),
        ("22021", Unstorable),
    ],
)
def test_postgresqls_codes(sqlstate: str, kind: type[StorageError]) -> None:
    for error in (of_postgresql(sqlstate), DBAPIError("SELECT", {}, of_postgresql(sqlstate))):
        ours = translated(error)
        assert type(ours) is kind
        assert "the text" in str(ours)


def test_other_failures() -> None:
    class InvalidCachedStatementError(Exception):
        """By this name SQLAlchemy tells of it."""

    stale = DBAPIError("SELECT", {}, InvalidCachedStatementError())
    lost = DBAPIError("SELECT", {}, Exception("closed"), connection_invalidated=True)
    for error in (stale, lost, PoolTimeoutError(), ConnectionResetError()):
        assert type(translated(error)) is DatabaseUnavailable
    assert translated(of_postgresql("23505")) is None
    assert translated(DBAPIError("SELECT", {}, Exception("another"))) is None

"""Old rows go in small steps, and the file gives their room back."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from compute_horde.storage.database import Database
from compute_horde.storage.retention import Housekeeper, by_key, database_bytes, purge, shrink

entries = sa.Table(
    "entry",
    sa.MetaData(),
    sa.Column("n", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("text", sa.Text, nullable=False),
)


class Pauses:
    """Stands for ``asyncio.sleep``; ``stop_after`` ends whoever pauses that often."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seconds: list[float] = []
        self._stop_after = stop_after

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == self._stop_after:
            raise Stopped


class Stopped(Exception):  # noqa: N818 - no error
    """The loop under test was left."""


@pytest.fixture(params=["incremental", "none"])
def vacuum(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def filled(path: Path, rows: int, vacuum: str = "none") -> Database:
    """A database with ``rows`` rows, written at 0, 1, 2, ..., each of about a page."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA auto_vacuum={vacuum}")
        raw.execute("VACUUM")
    database = Database(f"sqlite+aiosqlite:///{path}")
    async with database.begin() as connection:
        await connection.run_sync(entries.metadata.create_all)
        if rows:
            values = [{"n": n, "at": float(n), "text": "x" * 3500} for n in range(rows)]
            await connection.execute(entries.insert(), values)
    return database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = await filled(tmp_path / "test.db", 250)
    yield made
    await made.close()


async def left(database: Database) -> list[int]:
    async with database.read() as connection:
        return list((await connection.execute(sa.select(entries.c.n).order_by(entries.c.n))).scalars())


async def test_old_rows_go_in_steps_with_pauses(database: Database) -> None:
    pauses = Pauses()
    rule = by_key(entries.c.n, entries.c.at < 230)
    assert await purge(database, *rule, step=100, pause_s=0.5, sleep=pauses) == 230
    assert await left(database) == list(range(230, 250))
    assert pauses.seconds == [0.5] * 3


async def test_each_step_is_whole_by_itself(database: Database) -> None:
    with pytest.raises(Stopped):
        await purge(database, *by_key(entries.c.n, entries.c.at < 230), step=100, sleep=Pauses(stop_after=1))
    assert len(await left(database)) == 150
    assert await purge(database, *by_key(entries.c.n, entries.c.at < 230), sleep=Pauses()) == 130


async def test_nothing_to_do_writes_nothing(database: Database) -> None:
    pauses = Pauses()
    assert await purge(database, *by_key(entries.c.n, entries.c.at < 0), sleep=pauses) == 0
    assert pauses.seconds == []


async def test_a_row_that_may_not_go_any_more_stays_and_ends_the_work(database: Database) -> None:
    select_ids, _ = by_key(entries.c.n, entries.c.at < 10)
    _, delete_ids = by_key(entries.c.n, entries.c.at < -1)  # as if all of them had been touched in between
    assert await purge(database, select_ids, delete_ids, sleep=Pauses()) == 0
    assert len(await left(database)) == 250


async def test_room_goes_back_to_the_disk_where_the_file_was_made_for_it(tmp_path: Path, vacuum: str) -> None:
    database, pauses = await filled(tmp_path / "test.db", 250, vacuum), Pauses()
    before = await database_bytes(database)
    assert before > 250 * 3500
    await purge(database, *by_key(entries.c.n, entries.c.at < 240), sleep=pauses)
    assert await database_bytes(database) == before
    given = await shrink(database, step_pages=100, keep_pages=20, pause_s=0.25, sleep=pauses)
    after = await database_bytes(database)
    await database.close()
    if vacuum == "none":
        assert (given, after) == (0, before)
    else:
        assert given > 200
        assert after == before - given * 4096
        assert pauses.seconds[-3:] == [0.25] * 3


async def test_without_room_to_give_back_nothing_happens(tmp_path: Path) -> None:
    database, pauses = await filled(tmp_path / "test.db", 10, "incremental"), Pauses()
    assert await shrink(database, keep_pages=0, sleep=pauses) == 0
    assert pauses.seconds == []
    await database.close()


async def test_shrinking_ends_though_others_use_the_pages(tmp_path: Path) -> None:
    database = await filled(tmp_path / "test.db", 250, "incremental")
    await purge(database, *by_key(entries.c.n, entries.c.at < 50), sleep=Pauses())

    async def write(_seconds: float) -> None:
        async with database.begin() as connection:
            await connection.execute(entries.insert(), [{"at": 1000.0, "text": "x" * 3500} for _ in range(40)])

    await shrink(database, step_pages=10, keep_pages=0, sleep=write)
    assert len(await left(database)) >= 200
    async with database.read() as connection:
        assert (await connection.exec_driver_sql("PRAGMA integrity_check")).scalar_one() == "ok"
    await database.close()


async def test_freed_room_is_used_again(tmp_path: Path) -> None:
    database = await filled(tmp_path / "test.db", 0)
    sizes = []
    for day in range(6):
        async with database.begin() as connection:
            values = [{"at": float(day), "text": "x" * 3500} for _ in range(100)]
            await connection.execute(entries.insert(), values)
        await purge(database, *by_key(entries.c.n, entries.c.at < day - 1), sleep=Pauses())
        sizes.append(await database_bytes(database))
    await database.close()
    assert sizes[-1] <= sizes[2] * 1.05


async def test_rules_are_applied_again_and_again(database: Database) -> None:
    cut = 0

    async def old() -> int:
        nonlocal cut
        cut += 10
        return await purge(database, *by_key(entries.c.n, entries.c.at < cut), sleep=Pauses())

    pauses = Pauses(stop_after=3)
    with pytest.raises(Stopped):
        await Housekeeper(database, {"old": old}, every_s=600, sleep=pauses).run()
    assert pauses.seconds == [600] * 3
    assert await left(database) == list(range(30, 250))


async def test_a_rule_that_fails_holds_up_no_other(database: Database) -> None:
    async def broken() -> int:
        raise OSError("no room")

    async def fine() -> int:
        return 7

    keeper = Housekeeper(database, {"broken": broken, "fine": fine})
    assert await keeper.once() == {"fine": 7, "shrink": 0}

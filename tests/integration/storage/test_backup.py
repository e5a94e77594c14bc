"""Backups of databases that other processes write to, and backups that are killed."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from compute_horde.storage.backup import take

ROWS = 10_000
WRITER = """
import sqlite3, sys
databases = [sqlite3.connect(path, isolation_level=None, timeout=10) for path in sys.argv[1:]]
print("writing", flush=True)
while True:
    for database in databases:
        database.execute("INSERT INTO entry (text) VALUES ('later')")
"""


def make(path: Path, rows: int) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE entry (n INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO entry (text) VALUES (?)", [("x" * 3500,) for _ in range(rows)])
        database.commit()
    return path


def rows_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM entry").fetchone()[0])


@pytest.fixture
def databases(tmp_path: Path) -> dict[str, Path]:
    return {"large.db": make(tmp_path / "large.db", ROWS), "small.db": make(tmp_path / "small.db", 0)}


@pytest.fixture
def writing(databases: dict[str, Path]) -> Iterator[None]:
    """A process that puts a row into one database, then into the other, as quickly as it can."""
    command = [sys.executable, "-c", WRITER, *map(str, databases.values())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield
        process.kill()


@pytest.mark.usefixtures("writing")
def test_all_databases_are_cut_at_one_moment(databases: dict[str, Path], tmp_path: Path) -> None:
    counted = []
    for number in range(5):
        copy = tmp_path / f"copy{number}"
        take(databases, {}, copy)
        first, second = rows_of(copy / "large.db") - ROWS, rows_of(copy / "small.db")
        assert first - second in (0, 1)
        counted.append(first)
    assert counted == sorted(counted)
    assert rows_of(databases["small.db"]) > counted[-1] > counted[0]


def test_a_killed_backup_is_never_taken_for_whole(databases: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    options = [f"--database=sqlite:///{path}" for path in databases.values()]
    command = [sys.executable, "-m", "compute_horde.cli", "backup", str(folder / "copy"), *options]
    with subprocess.Popen(command) as process:
        until = time.monotonic() + 60
        while not list(folder.glob(".copy.unfinished-*/large.db")):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert not (folder / "copy").exists()
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    assert rows_of(folder / "copy" / "large.db") == ROWS

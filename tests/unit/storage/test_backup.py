"""Copies of databases that are being written to, and ``horde backup``."""

import json
import os
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from compute_horde.cli.main import app
from compute_horde.stack.home import Home
from compute_horde.storage import backup as backups
from compute_horde.storage.backup import BackupError, take

ROWS = 2000


def no_sleep(_seconds: float) -> None:
    """Steps follow each other at once."""


def make(path: Path, rows: int = ROWS) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE entry (n INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO entry VALUES (?, ?)", [(n, "x" * 1000) for n in range(rows)])
        database.commit()
    return path


def rows_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM entry").fetchone()[0])


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection to the database ``a.db``; it waits for no lock."""
    make(tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None, timeout=0)) as connection:
        yield connection


def modes(folder: Path) -> set[tuple[bool, int]]:
    found = [folder, *folder.rglob("*")]
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in found}


def test_the_copy_is_of_one_moment_however_much_is_written_meanwhile(
    tmp_path: Path, writer: sqlite3.Connection
) -> None:
    steps: list[tuple[str, int, int]] = []

    def progress(name: str, done: int, of: int) -> None:
        steps.append((name, done, of))
        writer.execute("INSERT INTO entry (text) VALUES ('later')")

    made = take({"a.db": tmp_path / "a.db"}, {}, tmp_path / "copy", progress=progress, sleep=no_sleep)
    assert len(steps) > 1
    assert steps[-1][1] == steps[-1][2]
    assert rows_of(tmp_path / "copy" / "a.db") == ROWS
    assert rows_of(tmp_path / "a.db") == ROWS + len(steps)
    assert made.databases[0].bytes > ROWS * 1000


def test_whoever_holds_one_lock_can_get_the_others_meanwhile(tmp_path: Path, writer: sqlite3.Connection) -> None:
    make(tmp_path / "b.db")
    with closing(sqlite3.connect(tmp_path / "b.db", isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO entry (text) VALUES ('before')")
        waits = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 1:  # the backup holds no lock while it waits
                writer.execute("INSERT INTO entry (text) VALUES ('before')")
                other.execute("COMMIT")

        databases = {"a.db": tmp_path / "a.db", "b.db": tmp_path / "b.db"}
        take(databases, {}, tmp_path / "copy", sleep=sleep)
    assert {name: rows_of(tmp_path / "copy" / name) for name in databases} == {"a.db": ROWS + 1, "b.db": ROWS + 1}


def test_a_lock_that_is_never_free_ends_the_backup(
    tmp_path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "LOCKS_LIMIT_S", -1.0)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackupError, match="stays locked"):
        take({"a.db": tmp_path / "a.db"}, {}, tmp_path / "copy", sleep=no_sleep)
    assert not (tmp_path / "copy").exists()


def test_everything_is_private_whatever_it_was_before(tmp_path: Path) -> None:
    source = make(tmp_path / "a.db", rows=1)
    (tmp_path / "key").write_text("k")
    for path in (source, tmp_path / "key"):
        path.chmod(0o644)
    before = os.umask(0)
    try:
        take({"a.db": source}, {"wallets/user/hotkeys/key": tmp_path / "key"}, tmp_path / "copy", sleep=no_sleep)
    finally:
        os.umask(before)
    assert modes(tmp_path / "copy") == {(True, 0o700), (False, 0o600)}
    assert (tmp_path / "copy/wallets/user/hotkeys/key").read_text() == "k"


@pytest.mark.parametrize("there", ["file", "link", "full"])
def test_nothing_that_is_there_is_overwritten(tmp_path: Path, there: str) -> None:
    source, target = make(tmp_path / "a.db", rows=1), tmp_path / "copy"
    if there == "file":
        target.write_text("mine")
    elif there == "link":
        target.symlink_to(tmp_path / "elsewhere")
    else:
        target.mkdir()
        (target / "mine").write_text("")
    with pytest.raises(BackupError, match="choose"):
        take({"a.db": source}, {}, target, sleep=no_sleep)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    take({"a.db": make(tmp_path / "a.db", rows=1)}, {}, tmp_path / "copy", sleep=no_sleep)
    assert rows_of(tmp_path / "copy" / "a.db") == 1


def test_an_interrupted_copy_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(name: str, done: int, of: int) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "backups"
    with pytest.raises(KeyboardInterrupt):
        take({"a.db": make(tmp_path / "a.db")}, {}, folder / "copy", progress=interrupt, sleep=no_sleep)
    assert list(folder.iterdir()) == []


def test_until_it_is_whole_the_copy_has_another_name(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(name: str, done: int, of: int) -> None:
        seen.extend(path.name for path in (tmp_path / "backups").iterdir())

    take({"a.db": make(tmp_path / "a.db")}, {}, tmp_path / "backups" / "copy", progress=look, sleep=no_sleep)
    assert {name.partition("-")[0] for name in seen} == {".copy.unfinished"}
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["copy"]


def test_a_damaged_database_is_found_out(tmp_path: Path) -> None:
    source = make(tmp_path / "a.db")
    raw = bytearray(source.read_bytes())
    raw[40 * 4096 : 41 * 4096] = b"\xff" * 4096
    source.write_bytes(raw)
    with pytest.raises(BackupError, match="damaged"):
        take({"a.db": source}, {}, tmp_path / "copy", sleep=no_sleep)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("contents", "says"), [(None, "no database at"), (b"no database" * 100, "not a database")]
)
def test_what_is_no_database_is_named(tmp_path: Path, contents: bytes | None, says: str) -> None:
    source = tmp_path / "a.db"
    if contents is not None:
        source.write_bytes(contents)
    with pytest.raises(BackupError, match=says):
        take({"a.db": source}, {}, tmp_path / "copy", sleep=no_sleep)


def test_a_file_that_is_gone_ends_the_backup(tmp_path: Path) -> None:
    source = make(tmp_path / "a.db", rows=1)
    with pytest.raises(BackupError, match="No such file"):
        take({"a.db": source}, {"key": tmp_path / "gone"}, tmp_path / "copy", sleep=no_sleep)
    assert not (tmp_path / "copy").exists()


def test_a_target_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupError, match=r"Not a directory|File exists"):
        take({"a.db": make(tmp_path / "a.db", rows=1)}, {}, tmp_path / "file" / "copy", sleep=no_sleep)


# the command


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The folder of a horde, as ``horde up`` leaves it."""
    home = Home(tmp_path / "home")
    home.hold()
    for service in ("facilitator", "validator", "miner", "trusted-miner"):
        make(home.path / f"{service}.db", rows=ROWS if service == "miner" else 3)
    home.key("user")
    home.open_chain("user", "validator")
    (home.path / "horde.json").write_text("{}")
    return home


def horde(*args: object) -> Result:
    return CliRunner().invoke(app, ["backup", *map(str, args)], catch_exceptions=False)


def test_a_home_is_copied_with_all_that_up_needs(tmp_path: Path, home: Home) -> None:
    done = horde(tmp_path / "copy", "--dir", home.path, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert set(told) == {"target", "taken_at", "databases", "files"}
    assert [entry["name"] for entry in told["databases"]] == [
        "facilitator.db",
        "miner.db",
        "trusted-miner.db",
        "validator.db",
    ]
    copy = Home(tmp_path / "copy")
    assert copy.key("user").ss58_address == home.key("user").ss58_address
    assert copy.chain_file.read_text() == home.chain_file.read_text()
    assert not {"lock", "horde.json"} & {path.name for path in copy.path.iterdir()}
    copy.hold()
    copy.release()


def test_the_result_is_said_in_words(tmp_path: Path, home: Home) -> None:
    done = horde(tmp_path / "copy", "--dir", home.path)
    assert "validator.db" in done.stdout
    assert str(tmp_path / "copy") in done.stdout.replace("\n", "")


def test_databases_by_themselves(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a.db", rows=1), make(tmp_path / "b.db", rows=2)
    urls = ["--database", f"sqlite+aiosqlite:///{first}", "--database", f"sqlite:///{second}"]
    assert horde(tmp_path / "copy", *urls).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["a.db", "b.db"]


def test_a_home_and_databases_together(tmp_path: Path, home: Home) -> None:
    other = make(tmp_path / "other.db", rows=1)
    assert horde(tmp_path / "copy", "--dir", home.path, "--database", f"sqlite:///{other}").exit_code == 0
    assert {"other.db", "miner.db", "wallets"} <= {path.name for path in (tmp_path / "copy").iterdir()}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--database", "postgresql://horde:hidden@db.test/horde"], "pg_dump"),
        (["--database", "postgres://horde:hidden@db.test/horde"], "pg_dump"),
        (["--database", "sqlite:///:memory:"], "in memory"),
        (["--database", "mysql://db.test/horde"], "database URL looks like"),
        (
            ["--database", "sqlite:///one/a.db", "--database", "sqlite:///two/a.db"],
            "two databases are called a.db",
        ),
        (["--dir", "nowhere"], "no horde at"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path: Path, args: list[str], says: str) -> None:
    done = horde(tmp_path / "copy", *args)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "hidden" not in done.stderr
    assert not (tmp_path / "copy").exists()


def test_a_target_that_is_not_empty_is_refused(tmp_path: Path, home: Home) -> None:
    done = horde(home.path, "--dir", home.path)
    assert done.exit_code == 2
    assert "not empty" in done.stderr


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    done = horde(tmp_path / "copy", "--database", f"sqlite:///{tmp_path}/gone.db")
    assert (done.exit_code, "no database at" in done.stderr) == (1, True)


def test_sigterm_ends_it_without_traces(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(*args: Any, **options: Any) -> Any:
        return take(*args, **{**options, "progress": lambda name, done, of: os.kill(os.getpid(), signal.SIGTERM)})

    monkeypatch.setattr(backups, "take", terminated)
    before = signal.getsignal(signal.SIGTERM)
    assert horde(tmp_path / "backups" / "copy", "--dir", home.path).exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert list((tmp_path / "backups").iterdir()) == []

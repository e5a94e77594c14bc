"""A copy of SQLite databases, and of the files that belong to them, while services write to them.

All databases are cut at one moment: every write lock is held for some milliseconds, in which a snapshot of each
database is opened. The copy is then what a power failure at that moment would have left, and services go on from
such. Snapshots are read page by page beside the writers, who wait for nothing.
"""

import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

PAGES_A_STEP = 256
PAUSE_S = 0.005
LOCK_WAIT_S = 0.05
"""Short: services of one process may hold one lock while they wait for another of ours."""
LOCKS_LIMIT_S = 30.0

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a database's name, its pages that are copied, and all of its pages."""


class BackupError(RuntimeError):
    """There is no copy. The text says why and what to do."""


@dataclass(frozen=True)
class CopiedDatabase:
    """``bytes``: of the copy."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Backup:
    """What was copied. ``taken_at``: UNIX seconds of the moment at which all databases were cut."""

    target: Path
    taken_at: float
    databases: tuple[CopiedDatabase, ...]
    files: tuple[str, ...]


def take(
    databases: Mapping[str, Path],
    files: Mapping[str, Path],
    target: Path,
    *,
    progress: Progress = lambda name, done, of: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Backup:
    """Copy ``databases`` and ``files`` (path inside the target: where it is now) into the new folder ``target``.

    The folder gets its name when everything in it was written, checked and flushed to the disk.

    :raises BackupError: there is something at ``target``, a database cannot be read or stays locked, or the copy
        is not whole.
    """
    require_empty(target)
    with _explained(), _unfinished(target) as folder:
        with _snapshots(databases, sleep) as (taken_at, sources):
            copied = tuple(
                _copy_database(name, source, folder / name, progress, sleep) for name, source in sources.items()
            )
        for name, source in files.items():
            _copy_file(source, folder / name)
        _seal(folder)
        folder.rename(target)
        _flush(target.parent)
    return Backup(target, taken_at, copied, tuple(files))


def require_empty(target: Path) -> None:
    """:raises BackupError: something is there already."""
    if target.is_symlink() or target.is_file():
        raise BackupError(f"{target} is there already, and no folder; choose another one")
    with _explained():
        if target.is_dir() and any(target.iterdir()):
            raise BackupError(f"{target} is not empty; choose a folder that is not there yet")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Errors of the file system and of SQLite, in words."""
    try:
        yield
    except OSError as error:
        raise BackupError(f"{error.filename or 'the copy'}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise BackupError(f"a database cannot be copied: {error}") from None


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A folder beside the target, readable by us alone, that is gone afterwards if it was not renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.unfinished-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _snapshots(
    databases: Mapping[str, Path], sleep: Callable[[float], None]
) -> Iterator[tuple[float, dict[str, sqlite3.Connection]]]:
    """Connections that each see their database as it was at one and the same moment."""
    with contextlib.ExitStack() as stack:
        readers = {name: stack.enter_context(_opened(path)) for name, path in databases.items()}
        lockers = [stack.enter_context(_opened(path)) for path in databases.values()]
        _lock_all(lockers, sleep)
        taken_at = time.time()
        for reader in readers.values():
            reader.execute("BEGIN")
            reader.execute(
                "SELECT count(*) FROM sqlite_master"
            ).fetchone()  # a snapshot begins with the first read
        for locker in lockers:
            locker.execute("ROLLBACK")
        yield taken_at, readers


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database at ``path``, which has to be there already."""
    if not path.is_file():
        raise BackupError(f"there is no database at {path}")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    with contextlib.closing(connection):
        connection.execute(f"PRAGMA busy_timeout={int(LOCK_WAIT_S * 1000)}")
        yield connection


def _lock_all(lockers: Sequence[sqlite3.Connection], sleep: Callable[[float], None]) -> None:
    """Hold every write lock, or none: whoever holds one of them may be waiting for another."""
    give_up_at = time.monotonic() + LOCKS_LIMIT_S
    while not _locked(lockers):
        if time.monotonic() > give_up_at:
            raise BackupError("a database stays locked by somebody else; try again later")
        sleep(random.uniform(0.01, 0.05))  # noqa: S311 - so that two backups do not meet again and again


def _locked(lockers: Sequence[sqlite3.Connection]) -> bool:
    try:
        for locker in lockers:
            locker.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        for locker in lockers:
            if locker.in_transaction:
                locker.execute("ROLLBACK")
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _copy_database(
    name: str, source: sqlite3.Connection, target: Path, progress: Progress, sleep: Callable[[float], None]
) -> CopiedDatabase:
    def step(_status: int, remaining: int, total: int) -> None:
        progress(name, total - remaining, total)
        if remaining:
            sleep(PAUSE_S)

    _make_file(target)
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.backup(copy, pages=PAGES_A_STEP, progress=step)
        _check(name, copy)
    return CopiedDatabase(name, target.stat().st_size)


def _check(name: str, copy: sqlite3.Connection) -> None:
    try:
        found = [str(row[0]) for row in copy.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:  # so damaged that it cannot even be checked
        found = [str(error)]
    if found != ["ok"]:
        raise BackupError(f"the copy of {name} is damaged, and so may be the database: {found[0]}")


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _make_file(target)
    shutil.copyfile(source, target)


def _make_file(path: Path) -> None:
    """An empty file that is nobody else's to read, before anything is written to it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _seal(folder: Path) -> None:
    """Flush everything to the disk; inner folders become private, too."""
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o700)
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

"""Names that a living process holds, and that are free as soon as it is dead.

=============  =========================================================================================
PostgreSQL     a session's advisory lock: free when its connection ends, with the process or, where a machine
               or a network vanishes without a word, within half a minute
SQLite         a lock on a file in a folder beside the database: free when the process ends
in memory      a set: there is one process
=============  =========================================================================================

A process whose session is lost lives on without its names until it is back, a moment later. So whoever finds a
name free knows that *probably* nobody works under it; the condition of an update decides.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from compute_horde.storage.database import Database
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.storage.session import CHECK_S, Session


class Holds(Protocol):
    """What this process holds. Names: letters, digits, ``.``, ``-`` and ``_``, 100 characters at most."""

    async def take(self, name: str) -> bool:
        """Hold the name from now on. False: somebody else does. :raises DatabaseUnavailable:"""
        ...

    async def free(self, names: Iterable[str]) -> set[str]:
        """Those that nobody holds. :raises DatabaseUnavailable:"""
        ...

    async def close(self) -> None:
        """Let go of all. Doing so twice is fine."""
        ...


def make_holds(database: Database) -> Holds:
    """What fits the database. They are shared with all processes that use the same one."""
    if database.dialect == "postgresql":
        return PostgresHolds(database)
    return MemoryHolds(id(database)) if database.file is None else FileHolds(database.file)


class MemoryHolds:
    """:class:`Holds` within one process, among those who name the same ``scope``."""

    _held: ClassVar[set[tuple[int, str]]] = set()

    def __init__(self, scope: int) -> None:
        self._scope = scope
        self._own: set[tuple[int, str]] = set()

    async def take(self, name: str) -> bool:
        entry = (self._scope, name)
        if entry in self._held - self._own:
            return False
        self._held.add(entry)
        self._own.add(entry)
        return True

    async def free(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if (self._scope, name) not in self._held}

    async def close(self) -> None:
        self._held.difference_update(self._own)
        self._own.clear()


class FileHolds:
    """:class:`Holds` by ``flock`` in the folder ``<file>.locks``, which only this machine's processes see."""

    def __init__(self, file: Path) -> None:
        self._folder = file.with_name(f"{file.name}.locks")
        self._open: dict[str, int] = {}

    async def take(self, name: str) -> bool:
        if name in self._open:
            return True
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            taken = _lock_file(self._folder / name)
        except OSError as error:
            raise DatabaseUnavailable(f"{self._folder}: {error}") from error
        if taken is None:
            return False
        self._open[name] = taken
        return True

    async def free(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if name not in self._open and self._is_free(self._folder / name)}

    async def close(self) -> None:
        while self._open:
            name, file = self._open.popitem()
            (self._folder / name).unlink(missing_ok=True)
            os.close(file)

    def _is_free(self, path: Path) -> bool:
        """Whether it is not there, or what is left of a dead process; that is removed."""
        if not path.exists():
            return True
        taken = _lock_file(path)
        if taken is None:
            return False
        path.unlink(missing_ok=True)
        os.close(taken)
        return True


def _lock_file(path: Path) -> int | None:
    """An open, locked file of this name; None while somebody else has it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # its last owner removed the name before it let go


_KEY = "hashtextextended('compute-horde:' || {name}, 0)"
_TAKE = f"SELECT pg_try_advisory_lock({_KEY.format(name='$1::text')})"
_FREE = f"""
SELECT name FROM unnest($1::text[]) AS name
WHERE {_KEY.format(name="name")} NOT IN (
    SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)"""  # noqa: S608 - made of constants


class PostgresHolds:
    """:class:`Holds` by advisory locks of one session, which begins with the first use."""

    def __init__(self, database: Database, check_s: float = CHECK_S) -> None:
        self.session = Session(database.address, self._take_all, self._take_missing, check_s)
        self._starting = asyncio.Lock()
        self._started = False
        self._names: set[str] = set()
        self._missing: set[str] = set()

    async def take(self, name: str) -> bool:
        await self._start()
        if name not in self._names:
            async with self.session.use() as connection:
                if not await connection.fetchval(_TAKE, name):
                    return False
            self._names.add(name)
        return name not in self._missing

    async def free(self, names: Iterable[str]) -> set[str]:
        await self._start()
        async with self.session.use() as connection:
            return {row["name"] for row in await connection.fetch(_FREE, list(names))} - self._names

    async def close(self) -> None:
        self._names.clear()
        self._started = False
        await self.session.close()

    async def _start(self) -> None:
        async with self._starting:
            if not self._started:
                await self.session.start()
                self._started = True

    async def _take_all(self, connection: Any) -> None:
        self._missing = set(self._names)
        await self._take_missing(connection)

    async def _take_missing(self, connection: Any) -> None:
        """The server may not have noticed yet that the session before is dead: then later."""
        await connection.execute("SELECT 1")
        for name in list(self._missing):
            if await connection.fetchval(_TAKE, name):
                self._missing.discard(name)

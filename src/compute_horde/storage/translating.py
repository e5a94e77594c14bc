"""Foreign exceptions of the database are translated into ours here, once."""

import contextlib
import sqlite3
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from compute_horde.storage.errors import (
    DatabaseFull,
    DatabaseMisconfigured,
    DatabaseUnavailable,
    StorageError,
    Unstorable,
)

_FULL = {"53100", str(sqlite3.SQLITE_FULL)}
_TRANSIENT = {
    *("25006", "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "57P04", "57P05"),
    *(str(code) for code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM)),
    *(str(code) for code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)),
}
"""SQLSTATEs of PostgreSQL (shut down, failed over, deadlock, timed out) and SQLite's own numbers."""
_TRANSIENT_CLASSES = ("08", "53", "58")
"""Connection trouble, lack of resources, trouble of the machine."""
_BAD_DATA = "22"
_REFUSED = {"28000", "28P01", "3D000", "42501"}
"""No such user, wrong password, no such database, no permission."""


def translated(error: BaseException) -> StorageError | None:
    """Our exception for what a driver raised; None: it is none of ours, such as a violated constraint."""
    if isinstance(error, TimeoutError | PoolTimeoutError):
        return DatabaseUnavailable("the database did not answer in time")
    raised = error.orig if isinstance(error, DBAPIError) else error
    code, text = _code(raised), str(raised)
    if code in _FULL:
        return DatabaseFull(text, code)
    if len(code) == 5 and code.startswith(_BAD_DATA):
        return Unstorable(text)
    if code in _REFUSED:
        return DatabaseMisconfigured(text)
    if code in _TRANSIENT or (len(code) == 5 and code[:2] in _TRANSIENT_CLASSES):
        return DatabaseUnavailable(text, code)
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    stale = "InvalidCachedStatementError" in type(raised).__name__  # a migration; prepared anew next time
    return DatabaseUnavailable(text, code) if lost or stale or isinstance(error, OSError) else None


def _code(raised: BaseException | None) -> str:
    """The SQLSTATE, or SQLite's primary result code."""
    number = getattr(raised, "sqlite_errorcode", None)
    if number is None and raised is not None:
        number = getattr(raised.__cause__, "sqlite_errorcode", None)
    return str(number & 0xFF) if number is not None else str(getattr(raised, "sqlstate", None) or "")


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """:raises StorageError: in place of a driver's exception that is one."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError, TimeoutError) as error:
        ours = translated(error)
        if ours is None:
            raise
        raise ours from error

"""The database's own clock: one for all processes that share it."""

from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class DatabaseNow(FunctionElement[float]):
    """The moment at which the statement runs, in UNIX seconds; in any statement, on both databases."""

    type = Float(53)
    inherit_cache = True
    name = "database_now"


@compiles(DatabaseNow, "postgresql")
def _postgresql(_element: DatabaseNow, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(DatabaseNow, "sqlite")
def _sqlite(_element: DatabaseNow, _compiler: SQLCompiler, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


def now() -> DatabaseNow:
    """The expression."""
    return DatabaseNow()

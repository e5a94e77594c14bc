"""Which database a URL means."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from compute_horde.storage.errors import DatabaseMisconfigured

Dialect = Literal["sqlite", "postgresql"]
MEMORY = ":memory:"
_SCHEMES: dict[str, Dialect] = {
    "sqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "postgresql+asyncpg": "postgresql",
}


@dataclass(frozen=True)
class Address:
    """``file``: SQLite's, None in memory and for PostgreSQL. ``dsn``: PostgreSQL's, as libpq reads it."""

    dialect: Dialect
    name: str
    """For logs and messages: without the password."""
    file: Path | None = None
    dsn: str = field(default="", repr=False)


def read_address(url: str) -> Address:
    """Read ``sqlite:///FILE``, ``sqlite://`` (in memory) or ``postgresql://USER:PASSWORD@HOST:PORT/NAME?...``.

    :raises DatabaseMisconfigured: it is neither.
    """
    scheme, separator, rest = url.partition("://")
    dialect = _SCHEMES.get(scheme)
    if dialect is None or not separator:
        raise DatabaseMisconfigured(
            "a database URL looks like sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME, "
            f"not like {scheme + '://...' if separator else 'this'}"
        )
    if dialect == "postgresql":
        return Address(dialect, _without_password(rest), dsn=f"postgresql://{rest}")
    return _sqlite(url)


def _sqlite(url: str) -> Address:
    try:
        path = make_url(url).database or MEMORY
    except (ArgumentError, ValueError) as error:
        raise DatabaseMisconfigured(f"this is no URL of an SQLite file: {error}") from error
    return Address("sqlite", f"sqlite:///{path}", file=None if path == MEMORY else Path(path))


def _without_password(rest: str) -> str:
    hidden = re.sub(r"(?<![^&?])(password|sslpassword)=[^&]*", r"\1=***", rest)
    login, at, host = hidden.rpartition("@")
    return f"postgresql://{login.partition(':')[0]}{at}{host}"

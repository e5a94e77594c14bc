"""PostgreSQL: connections that notice a dead peer, and a pool of them."""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from compute_horde.storage.address import Address
from compute_horde.storage.errors import DatabaseMisconfigured, DatabaseUnavailable
from compute_horde.storage.translating import translated

try:
    import asyncpg
except ModuleNotFoundError:  # SQLite does without
    asyncpg = None

FAILURES: tuple[type[Exception], ...] = (OSError, TimeoutError)
"""What a use of an asyncpg connection raises when it goes wrong."""
if asyncpg is not None:
    FAILURES += (asyncpg.PostgresError, asyncpg.InterfaceError)
POOL_SIZE, POOL_OVERFLOW = 10, 10
POOL_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 30.0
IDLE_S = 1.0
"""A pooled connection that rested longer is asked whether it still works before it is used."""
PING_TIMEOUT_S = 3.0
_SERVER_SETTINGS = {
    "application_name": "compute-horde",
    "idle_in_transaction_session_timeout": "60000",
    "jit": "off",  # our queries are short
    # a machine that vanished loses its locks within half a minute
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
SETTLE = text(
    "SELECT set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'compute-horde', '')"
)
"""Writes next to nothing, and commits it onto the disk."""

_SOCKET_OPTIONS = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}


async def connect(address: Address, command_timeout_s: float | None = COMMAND_TIMEOUT_S) -> Any:
    """An asyncpg connection. A statement that takes longer than ``command_timeout_s`` raises TimeoutError.

    :raises DatabaseUnavailable: nothing answers there, or it is starting, stopping or full.
    :raises DatabaseMisconfigured: it refuses the login, the DSN is wrong, or asyncpg is not installed.
    """
    require_driver()
    try:
        connection = await asyncpg.connect(
            address.dsn,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=command_timeout_s,
            server_settings=_server_settings(address),
        )
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        reason = translated(error) or DatabaseUnavailable(str(error))
        raise type(reason)(f"{address.name}: {reason}") from error
    except (ValueError, asyncpg.InterfaceError) as error:  # asyncpg's words for a DSN that it cannot read
        raise DatabaseMisconfigured(f"{address.name}: {error}") from error
    _watch_peer(connection)
    return connection


def _server_settings(address: Address) -> dict[str, str]:
    """Commits do not wait for the disk (see storage/settling.py), unless the operator says so in the URL."""
    chosen = "synchronous_commit" in address.dsn
    return _SERVER_SETTINGS if chosen else {**_SERVER_SETTINGS, "synchronous_commit": "off"}


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """For the direct use of an asyncpg connection.

    :raises DatabaseUnavailable: or what else storage raises, in place of asyncpg's exceptions.
    """
    try:
        yield
    except FAILURES as error:
        raise translated(error) or DatabaseUnavailable(str(error)) from error


def require_driver() -> None:
    """:raises DatabaseMisconfigured: asyncpg is not installed."""
    if asyncpg is None:
        raise DatabaseMisconfigured("PostgreSQL needs the package asyncpg: pip install 'compute-horde[horde]'")


def _watch_peer(connection: Any) -> None:
    """A peer that is gone without a word is noticed by the kernel; asyncpg offers no setting for it."""
    transport = getattr(connection, "_transport", None)
    raw = transport.get_extra_info("socket") if transport is not None else None
    if raw is None or raw.family == socket.AF_UNIX:
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET_OPTIONS.items():
        if hasattr(socket, name):  # Linux has them all
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def make_engine(address: Address, command_timeout_s: float | None) -> AsyncEngine:
    """A bounded pool. Statements stay prepared over a migration, since each names the columns that it reads."""
    require_driver()

    async def creator() -> Any:
        return await connect(address, command_timeout_s)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=creator,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_S,
        pool_use_lifo=True,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "checkin", _rests)
    event.listen(engine.sync_engine, "checkout", _still_works)
    return engine


def _rests(_connection: object, record: Any) -> None:
    record.info["rests_since"] = time.monotonic()


def _still_works(adapted: Any, record: Any, _proxy: object) -> None:
    """:raises DisconnectionError: the pool shall make another. Costs nothing while the pool is busy."""
    connection = adapted.driver_connection
    if connection.is_closed():
        raise DisconnectionError("closed by the server")
    rested = time.monotonic() - record.info.get("rests_since", time.monotonic())
    if rested < IDLE_S:
        return
    try:
        await_only(connection.execute("SELECT 1", timeout=PING_TIMEOUT_S))
    except FAILURES as error:
        connection.terminate()
        raise DisconnectionError(str(error)) from error

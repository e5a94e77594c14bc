"""One SQLAlchemy engine per service: SQLite by default, PostgreSQL by URL."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from compute_horde.storage import postgres, sqlite
from compute_horde.storage.address import Address, Dialect, read_address
from compute_horde.storage.clock import now
from compute_horde.storage.settling import Settling, Sync, log_of
from compute_horde.storage.translating import translating


class Database:
    """Transactions on one database.

    ``url``: ``sqlite:///FILE`` (``sqlite:////path`` is absolute), ``sqlite:///:memory:`` or
    ``postgresql://USER:PASSWORD@HOST:PORT/NAME``, with libpq's options such as ``?sslmode=require``. One
    statement may take ``command_timeout_s`` on PostgreSQL.

    On PostgreSQL writers run beside each other (READ COMMITTED): a row that was read may change before it is
    written. So an update names in its condition what it relies on, and zero updated rows mean stale.

    :raises DatabaseMisconfigured: the URL is neither, or its driver is not installed.
    """

    def __init__(self, url: str, *, command_timeout_s: float | None = postgres.COMMAND_TIMEOUT_S) -> None:
        self.url = url
        self.address = read_address(url)
        self.engine = _engine(self.address, command_timeout_s)
        options = sqlite.READING if self.dialect == "sqlite" else _READING
        self._reader = self.engine.execution_options(**options)
        # SQLite lets a second writer sleep, up to 100 ms at a time; here it goes on as soon as the first is done
        self._settling = Settling(self._sync())
        self._turn = asyncio.Lock() if self.dialect == "sqlite" else contextlib.nullcontext()

    @property
    def dialect(self) -> Dialect:
        return self.address.dialect

    @property
    def file(self) -> Path | None:
        """SQLite's file; None in memory and on PostgreSQL."""
        return self.address.file

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back when it raises. No network I/O in it.

        :raises DatabaseUnavailable: see there.
        """
        async with self._turn, _transaction(self.engine) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads, beside whoever writes: it sees all that was committed when it began.

        :raises DatabaseUnavailable: see there.
        """
        in_memory = self.dialect == "sqlite" and self.file is None  # one connection serves all
        async with self.begin() if in_memory else _transaction(self._reader) as connection:
            yield connection

    async def settled(self) -> None:
        """Return when all that was committed before is on the disk, so that even a power failure cannot undo it.

        To be awaited before a peer is told to rely on it; calls at the same time share one trip to the disk.

        :raises DatabaseUnavailable: the disk does not take it.
        """
        await self._settling.settled()

    async def now(self) -> float:
        """The database's clock, in UNIX seconds. Within a statement: :func:`compute_horde.storage.clock.now`."""
        async with self.read() as connection:
            return float((await connection.execute(select(now()))).scalar_one())

    def _sync(self) -> Sync | None:
        if self.dialect == "postgresql":
            return self._commit_on_the_disk
        return None if self.file is None else log_of(self.file)

    async def _commit_on_the_disk(self) -> None:
        """A commit that waits for the disk takes all earlier ones with it."""
        async with self.begin() as connection:
            await connection.execute(postgres.SETTLE)

    async def close(self) -> None:
        await self._settling.close()
        await self.engine.dispose()


_READING: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""PostgreSQL's: one snapshot for all statements. It is part of BEGIN, so it costs nothing."""


def _engine(address: Address, command_timeout_s: float | None) -> AsyncEngine:
    if address.dialect == "postgresql":
        return postgres.make_engine(address, command_timeout_s)
    return sqlite.make_engine(address)


@contextlib.asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    with translating():
        async with engine.connect() as connection:  # its end rolls back what was not committed
            transaction = await connection.begin()
            try:
                yield connection
                await transaction.commit()
            except TimeoutError:  # nobody knows what the server makes of this connection
                await connection.invalidate()
                raise

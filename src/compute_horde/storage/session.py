"""One PostgreSQL connection that is kept for as long as the process lives, for locks and notifications."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog

from compute_horde.storage import postgres
from compute_horde.storage.address import Address
from compute_horde.storage.errors import DatabaseUnavailable, StorageError

log = structlog.get_logger(__name__)

CHECK_S = 5.0
"""Between two looks at a connection that says nothing; each look may take as long."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 5.0
"""Before the first attempt to connect again, and between later ones."""

Prepare = Callable[[Any], Awaitable[None]]


class Session:
    """Connects again for ever. ``prepare`` is called with each new asyncpg connection before anyone else has it;
    ``tend`` every ``check_s`` seconds, and its failure counts as a lost connection."""

    def __init__(
        self, address: Address, prepare: Prepare, tend: Prepare | None = None, check_s: float = CHECK_S
    ) -> None:
        self._address, self._prepare, self._tend, self._check_s = address, prepare, tend or _ping, check_s
        self._lost = asyncio.Event()
        self._turn = asyncio.Lock()  # asyncpg does one thing at a time
        self._keeping: asyncio.Task[None] | None = None
        self._connection: Any = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def start(self) -> None:
        """:raises StorageError: the first attempt fails; nothing goes on then."""
        await self._open()
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Doing so twice is fine."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None
        await self._drop()

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        """The asyncpg connection, for one user at a time.

        :raises DatabaseUnavailable: there is none, or it is lost meanwhile.
        """
        async with self._turn:
            if self._connection is None:
                raise DatabaseUnavailable(f"{self._address.name}: the session is lost")
            with postgres.translating():
                yield self._connection

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), self._check_s)
            if not self._lost.is_set() and await self._works():
                continue
            log.warning("the session with the database is lost", database=self._address.name)
            await self._drop()
            await self._open_again()

    async def _works(self) -> bool:
        try:
            async with asyncio.timeout(self._check_s), self.use() as connection:
                await self._tend(connection)
        except (StorageError, TimeoutError):
            return False
        return True

    async def _open_again(self) -> None:
        wait = FIRST_WAIT_S
        while True:
            try:
                return await self._open()
            except StorageError as error:
                log.debug("the database is not back", database=self._address.name, reason=str(error))
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads the attempts of many
            wait = min(wait * 2, LONGEST_WAIT_S)

    async def _open(self) -> None:
        connection = await postgres.connect(self._address)
        self._lost.clear()
        connection.add_termination_listener(lambda _: self._lost.set())
        try:
            with postgres.translating():
                await self._prepare(connection)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=1)
        except postgres.FAILURES:
            connection.terminate()


async def _ping(connection: Any) -> None:
    await connection.execute("SELECT 1")

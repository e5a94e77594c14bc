"""For services of which only one may run on a database."""

import asyncio
import time

from compute_horde.storage.database import Database
from compute_horde.storage.errors import AlreadyRunning
from compute_horde.storage.holds import Holds, make_holds

PATIENCE_S = 3.0
"""The process before may be about to end, and a server needs a moment to notice a dead one."""
_STEP_S = 0.1


class Sole:
    """The only ``service`` (such as ``miner``) on this database."""

    def __init__(self, database: Database, service: str, holds: Holds | None = None) -> None:
        self._holds = holds or make_holds(database)
        self._service, self._name = service, database.address.name

    async def start(self, patience_s: float = PATIENCE_S) -> None:
        """:raises AlreadyRunning: another one is there, for longer than the patience lasts."""
        end = time.monotonic() + patience_s
        while not await self._holds.take(f"sole-{self._service}"):
            if time.monotonic() >= end:
                await self._holds.close()
                raise AlreadyRunning(f"another {self._service} runs on the database {self._name}")
            await asyncio.sleep(_STEP_S)

    async def close(self) -> None:
        """Make room for the next. Doing so twice is fine."""
        await self._holds.close()

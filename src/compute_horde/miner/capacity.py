"""How many executors are free, told to the validators that understand it (``capacity``)."""

import asyncio

from compute_horde.miner.connection import Connection
from compute_horde.miner.pool import Pool
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.validator_miner import V0FreeExecutorsRequest


class CapacityNews:
    """Watches the pool. All changes of one turn of the event loop are one message, and one that says the same as
    the last is none.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._told: dict[Connection, V0FreeExecutorsRequest] = {}
        self._scheduled = False
        pool.changed = self._changed

    def follow(self, connection: Connection) -> None:
        """Tell a validator what is free, now and from now on; one that did not announce it is told nothing."""
        if Extension.CAPACITY in connection.extensions:
            self._tell_one(connection, self._now())

    def leave(self, connection: Connection) -> None:
        """The connection has ended."""
        self._told.pop(connection, None)

    def _now(self) -> V0FreeExecutorsRequest:
        return V0FreeExecutorsRequest(free={name: self._pool.free(name) for name in self._pool.manifest()})

    def _changed(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._scheduled = False
        now = self._now()
        for connection, told in list(self._told.items()):
            if told != now:
                self._tell_one(connection, now)

    def _tell_one(self, connection: Connection, now: V0FreeExecutorsRequest) -> None:
        self._told[connection] = now
        connection.tell_free(now)

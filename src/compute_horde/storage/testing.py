"""A disk that takes what was committed only when a test lets it."""

import asyncio

from compute_horde.storage.errors import DatabaseUnavailable


class HeldDisk:
    """Stands in for :meth:`.database.Database.settled`, where a test looks at what may not be said yet.

    ``asked``: how many trips were begun; ``errors``: so many of the next ones fail.
    """

    def __init__(self, trips: int = 0) -> None:
        """``trips``: how many are let through from the start."""
        self.asked = self.errors = 0
        self._trips = asyncio.Semaphore(trips)

    def let(self, trips: int = 1) -> None:
        """Let so many more through."""
        for _ in range(trips):
            self._trips.release()

    async def settled(self) -> None:
        self.asked += 1
        if self.errors:
            self.errors -= 1
            raise DatabaseUnavailable("the disk does not take it")
        await self._trips.acquire()

"""What was committed, on the disk, before somebody is told to rely on it (see ``storage/settling.py``).

Three promises need it: ``received`` makes the facilitator forget that it has to send the job, the full request
lets a miner run it, and the last receipt makes the miner forget its result. Nothing else waits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from compute_horde.transport.backoff import backoff
from compute_horde.validator.persisting import persist


class Disk:
    """Tries until the disk takes it; nothing is promised before. ``settled``: the database's."""

    def __init__(
        self, settled: Callable[[], Awaitable[None]], pauses: Callable[[], Iterator[float]] = backoff
    ) -> None:
        """``pauses``: between attempts."""
        self._settled, self._pauses = settled, pauses
        self._begun: set[asyncio.Task[None]] = set()

    async def settled(self) -> None:
        """Return when all that was committed before is on the disk."""
        await persist(lambda _: self._settled(), self._pauses, "the way to the disk")

    def begin(self) -> "asyncio.Task[None]":
        """The same beside other work: wait for it, without cancelling it, just before the promise is made."""
        task = asyncio.create_task(self.settled())
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return task

    async def close(self) -> None:
        """Give up; who still waits is told of a cancellation."""
        begun = list(self._begun)
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)

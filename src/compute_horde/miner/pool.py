"""The executor pool: how many executors of each class are free (section 7.3)."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from compute_horde.miner.launcher import LaunchedExecutor
from compute_horde.protocol.enums import ExecutorClass

log = structlog.get_logger(__name__)

KILL_LIMIT_SECONDS = 15.0


class ClassNotOffered(LookupError):  # noqa: N818 - the domain's word
    """The miner has no executors of this class (G44)."""


class Slot:
    """One executor's place: taken while its job runs, then lent on while the executor tidies up after it."""

    def __init__(self, pool: "Pool", executor_class: ExecutorClass) -> None:
        self._pool: Pool | None = pool
        self.executor_class = executor_class
        self._tidying = False

    def job_over(self) -> None:
        """The job's container has ended: the place may be reserved again, though the executor still tidies up."""
        if self._pool is not None and not self._tidying:
            self._tidying = True
            self._pool.taken[self.executor_class] -= 1
            self._pool.tidying[self.executor_class] += 1
            self._pool.changed()

    def release(self) -> None:
        """The executor has ended. Releasing twice is fine."""
        if self._pool is not None:
            counter = self._pool.tidying if self._tidying else self._pool.taken
            counter[self.executor_class] -= 1
            self._pool.changed()
            self._pool = None


class Pool:
    """Counts places; in one event loop, so that reserving is atomic. ``changed`` is called after each change."""

    def __init__(self, capacity: Mapping[ExecutorClass, int]) -> None:
        self.capacity = dict(capacity)
        self.taken: Counter[ExecutorClass] = Counter()
        self.tidying: Counter[ExecutorClass] = Counter()
        self.changed: Callable[[], None] = lambda: None

    def manifest(self) -> dict[ExecutorClass, int]:
        """How many executors of each class there are, busy ones included (section 6.4)."""
        return {executor_class: count for executor_class, count in self.capacity.items() if count > 0}

    def free(self, executor_class: ExecutorClass) -> int:
        """Places that can be reserved now. Executors that tidy up cost none, up to as many as there are places:
        past that they are not tidying but stuck.
        """
        capacity = self.capacity.get(executor_class, 0)
        stuck = max(0, self.tidying[executor_class] - capacity)
        return max(0, capacity - self.taken[executor_class] - stuck)

    def reserve(self, executor_class: ExecutorClass) -> Slot | None:
        """A place, or None when all are taken. :raises ClassNotOffered: there are none of this class."""
        if self.capacity.get(executor_class, 0) <= 0:
            raise ClassNotOffered(executor_class.value)
        if self.free(executor_class) == 0:
            return None
        return self.take(executor_class)

    def take(self, executor_class: ExecutorClass) -> Slot:
        """A place for a job that runs already, whether or not the miner offers as many now."""
        self.taken[executor_class] += 1
        self.changed()
        return Slot(self, executor_class)


async def until_ended(
    executor: LaunchedExecutor, over: "asyncio.Future[float]", kill_limit_s: float = KILL_LIMIT_SECONDS
) -> int | None:
    """Wait for an executor to end; its exit code, where it has one.

    ``over`` is set when its job is over, to the seconds that it then has to tidy up before it is killed. Never
    hangs: an executor that survives its killing for ``kill_limit_s`` is given up.
    """
    waiting = asyncio.ensure_future(executor.wait())
    try:
        either: set[asyncio.Future[Any]] = {waiting, over}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await asyncio.wait({waiting}, timeout=over.result())
        if not waiting.done():
            await _kill(executor, waiting, kill_limit_s)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()


async def _kill(executor: LaunchedExecutor, waiting: "asyncio.Future[int | None]", limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await executor.kill()
            await asyncio.wait({waiting})
    except TimeoutError:
        log.error("an executor survives its killing; its place is given up")

"""Looks at many jobs, a few requests at a time: what thousands of waiters ask for travels together."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from compute_horde_sdk._internal.exceptions import (
    ComputeHordeAuthenticationError,
    ComputeHordeConnectionError,
    ComputeHordeError,
)
from compute_horde_sdk._internal.port import JobSnapshot
from compute_horde_sdk._internal.wiring import Wiring

BATCH = 150
"""Jobs in one request; their uuids make a URL of 6 KiB, and most servers stop at 8."""

MAX_UNDER_WAY = 8
"""Requests at a time."""

BURST = 20
PER_SECOND = 20.0
"""Requests that may begin at once, and per second after that: the looks of a while then share one."""

_FOR_ALL = (ComputeHordeConnectionError, ComputeHordeAuthenticationError)
"""What a request for one would meet as well."""

FetchOne = Callable[[str], Awaitable[JobSnapshot]]
FetchMany = Callable[[list[str]], Awaitable[Iterable[JobSnapshot]]]


@dataclass(eq=False)
class _Look:
    outcome: "asyncio.Future[JobSnapshot]"
    waiting: int = 0
    batch: "_Batch | None" = None


@dataclass(eq=False)
class _Batch:
    looks: dict[str, _Look]
    task: "asyncio.Task[None] | None" = None
    wanted: int = field(init=False)

    def __post_init__(self) -> None:
        self.wanted = len(self.looks)


class Looker:
    """``one`` and ``many`` raise ComputeHordeError; ``many`` may leave jobs out, which are then fetched singly.

    In one event loop after another. A look that nobody waits for any more takes its request with it.
    """

    def __init__(self, one: FetchOne, many: FetchMany, wiring: Wiring) -> None:
        self._one, self._many, self._clock = one, many, wiring.clock
        self._queue: dict[str, _Look] = {}
        self._under_way: set[_Batch] = set()
        self._due: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._allowed, self._counted_at = float(BURST), wiring.clock()

    async def look(self, job_uuid: str) -> JobSnapshot:
        """The job as it is from now on: a request that is already under way does not count.

        :raises ComputeHordeError: refused, or out of reach.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._due, self._queue, self._under_way = loop, None, {}, set()
        look = self._queue.get(job_uuid)
        if look is None:
            look = self._queue[job_uuid] = _Look(loop.create_future())
        look.waiting += 1
        self._schedule()
        try:
            return await asyncio.shield(look.outcome)
        finally:
            look.waiting -= 1
            if not look.waiting:
                await self._drop(job_uuid, look)

    def _schedule(self) -> None:
        if self._due is None and self._queue and len(self._under_way) < MAX_UNDER_WAY:
            loop = asyncio.get_running_loop()
            pause = self._until_allowed()
            self._due = loop.call_later(pause, self._begin) if pause else loop.call_soon(self._begin)

    def _until_allowed(self) -> float:
        now = self._clock()
        self._allowed = min(BURST, self._allowed + max(now - self._counted_at, 0.0) * PER_SECOND)
        self._counted_at = now
        return max(0.0, (1.0 - self._allowed) / PER_SECOND)

    def _begin(self) -> None:
        self._due = None
        while self._queue and len(self._under_way) < MAX_UNDER_WAY and not self._until_allowed():
            self._allowed -= 1
            uuids = list(self._queue)[:BATCH]
            batch = _Batch({uuid: self._queue.pop(uuid) for uuid in uuids})
            for look in batch.looks.values():
                look.batch = batch
            self._under_way.add(batch)
            batch.task = asyncio.create_task(self._run(batch), name="compute-horde-look")
        self._schedule()

    async def _run(self, batch: _Batch) -> None:
        try:
            await self._fetch(batch.looks)
        except Exception as error:  # whatever it is: nobody else would tell those who wait
            for look in batch.looks.values():
                if not look.outcome.done() and look.waiting:
                    look.outcome.set_exception(error)
        finally:
            self._under_way.discard(batch)
            self._schedule()

    async def _fetch(self, looks: dict[str, _Look]) -> None:
        if len(looks) > 1:
            try:
                for snapshot in await self._many(list(looks)):
                    if look := looks.get(snapshot.uuid):
                        _tell(look, snapshot)
            except ComputeHordeError as error:
                if error.retryable or isinstance(error, _FOR_ALL):
                    raise
        for job_uuid, look in looks.items():
            if not look.outcome.done() and look.waiting:
                await self._fetch_one(job_uuid, look)

    async def _fetch_one(self, job_uuid: str, look: _Look) -> None:
        try:
            _tell(look, await self._one(job_uuid))
        except ComputeHordeError as error:
            if not look.outcome.done() and look.waiting:
                look.outcome.set_exception(error)

    async def _drop(self, job_uuid: str, look: _Look) -> None:
        batch = look.batch
        if look.outcome.done():
            look.outcome.exception()  # seen, even if whoever waited was cancelled at that very moment
        if batch is None:
            if self._queue.get(job_uuid) is look:
                del self._queue[job_uuid]
            if not self._queue and self._due is not None:
                self._due.cancel()
                self._due = None
            return
        batch.wanted -= 1
        if not batch.wanted and batch.task is not None and not look.outcome.done():
            batch.task.cancel()
            await asyncio.gather(batch.task, return_exceptions=True)


def _tell(look: _Look, snapshot: JobSnapshot) -> None:
    if not look.outcome.done():
        look.outcome.set_result(snapshot)

"""``map_jobs``: many specs, a bounded number of jobs under way, whatever ends first comes first."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compute_horde_sdk._internal.exceptions import ComputeHordeError, ComputeHordeValidationError
from compute_horde_sdk._internal.models import ComputeHordeJobResult
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec

if TYPE_CHECKING:  # the client imports this
    from compute_horde_sdk._internal.job import ComputeHordeJob


@dataclass(frozen=True)
class MappedJob:
    """What became of one spec.

    * ``index``: the spec's place among the specs, from 0; ``spec``: itself
    * ``job``: the last job that was created for it; None when none could be
    * ``error``: why it did not complete: ``job.error``, or what creating or waiting raised; None when it completed
    """

    index: int
    spec: ComputeHordeJobSpec
    job: "ComputeHordeJob | None"
    error: ComputeHordeError | None

    @property
    def result(self) -> ComputeHordeJobResult | None:
        """The job's; None when there is none."""
        return self.job.result if self.job else None


Specs = Iterable[ComputeHordeJobSpec] | AsyncIterable[ComputeHordeJobSpec]
Run = Callable[[int, ComputeHordeJobSpec], Awaitable[MappedJob]]


async def run_all(specs: Specs, run: Run, concurrency: int) -> AsyncIterator[MappedJob]:
    """Run each spec, at most ``concurrency`` at a time; take a spec only when there is room for it.

    When ``specs`` itself raises, those under way are still yielded before the exception leaves.
    """
    under_way: set[asyncio.Task[MappedJob]] = set()
    source = _Source(specs)
    ready: deque[MappedJob] = deque()
    try:
        while True:
            if len(under_way) < concurrency:
                source.ask()
            while ready:
                yield ready.popleft()
            if not under_way and not source.asked:
                break
            await asyncio.wait([*under_way, *source.asked], return_when=asyncio.FIRST_COMPLETED)
            ended = {task for task in under_way if task.done()}
            under_way -= ended
            ready.extend(task.result() for task in ended)
            if (found := source.taken()) is not None:
                under_way.add(asyncio.create_task(_run(run, *found)))
    finally:
        for task in (*under_way, *source.asked):
            task.cancel()
        await asyncio.gather(*under_way, *source.asked, return_exceptions=True)
        await source.aclose()
    if source.error is not None:
        raise source.error


async def _run(run: Run, index: int, spec: ComputeHordeJobSpec) -> MappedJob:
    return await run(index, spec)


class _Source:
    """The specs, asked for one at a time, in a task since an asynchronous source may be slow."""

    def __init__(self, specs: Specs) -> None:
        self._specs = _any(specs)
        self._count = 0
        self._over = False
        self.asked: set[asyncio.Task[ComputeHordeJobSpec | None]] = set()
        self.error: BaseException | None = None

    def ask(self) -> None:
        if not self._over and not self.asked:
            self.asked.add(asyncio.create_task(self._next()))

    def taken(self) -> tuple[int, ComputeHordeJobSpec] | None:
        """The spec that was asked for, if it is there."""
        if not any(task.done() for task in self.asked):
            return None
        task = self.asked.pop()
        self.error = task.exception()
        spec = None if self.error else task.result()
        if spec is None:
            self._over = True
            return None
        self._count += 1
        return self._count - 1, spec

    async def aclose(self) -> None:
        await self._specs.aclose()

    async def _next(self) -> ComputeHordeJobSpec | None:
        return await anext(self._specs, None)


async def _any(specs: Specs) -> AsyncGenerator[ComputeHordeJobSpec, None]:
    if isinstance(specs, AsyncIterable):
        async for spec in specs:
            yield spec
    else:
        for spec in specs:
            yield spec


def check_mapping(specs: object, concurrency: object) -> None:
    """:raises ComputeHordeValidationError: names the argument that is wrong."""
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ComputeHordeValidationError("concurrency must be a whole number, 1 or more", field="concurrency")
    if not isinstance(specs, Iterable | AsyncIterable):
        raise ComputeHordeValidationError("specs must be something to iterate over", field="specs")

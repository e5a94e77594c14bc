"""``job.logs``: the lines of a job's output, as it runs and from its result."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from compute_horde_sdk._internal.following import follow_until
from compute_horde_sdk._internal.history import begun_attempt
from compute_horde_sdk._internal.lines import LineSplitter, LogLine
from compute_horde_sdk._internal.models import ComputeHordeJobResult
from compute_horde_sdk._internal.port import OutputPiece

if TYPE_CHECKING:  # the job imports this
    from compute_horde_sdk._internal.job import ComputeHordeJob

QUIET_S = 3.0
"""How long nothing may come before "what there is by now" is complete."""


def job_lines(job: "ComputeHordeJob", follow: bool, quiet_s: float = QUIET_S) -> AsyncIterator[LogLine]:
    """See ``ComputeHordeJob.logs``."""
    return _followed(job) if follow else _by_now(job, quiet_s)


async def _by_now(job: "ComputeHordeJob", quiet_s: float) -> AsyncIterator[LogLine]:
    if job.status.is_in_progress():
        await job.refresh_from_facilitator()
    printed = _Printed(begun_attempt(job.status_history))
    if job.status.is_in_progress():
        async with _output(job) as pieces:
            while piece := await _next(pieces, asyncio.timeout(quiet_s)):
                for line in printed.feed(piece):
                    yield line
    for line in printed.end(job.result):
        yield line


async def _followed(job: "ComputeHordeJob") -> AsyncIterator[LogLine]:
    """The lines of one attempt after another; what the result has beyond them belongs to the last."""
    printed = _Printed(begun_attempt(job.status_history))
    if job.status.is_in_progress():
        async with _watching(job) as watch:
            while True:
                async with _output(job) as pieces:
                    while piece := await watch.next(pieces):
                        for line in printed.feed(piece):
                            yield line
                if await watch.has_ended():
                    break
                for line in printed.end(None):
                    yield line
                printed = _Printed(watch.attempt)
    if (last := begun_attempt(job.status_history)) != printed.attempt:
        for line in printed.end(None):
            yield line
        printed = _Printed(last)
    for line in printed.end(job.result):
        yield line


class _Printed:
    """What one attempt printed."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self._splitters = {"stdout": LineSplitter("stdout", attempt), "stderr": LineSplitter("stderr", attempt)}

    def feed(self, piece: OutputPiece) -> Iterator[LogLine]:
        return self._splitters[piece.stream].feed(piece.offset, piece.text)

    def end(self, result: ComputeHordeJobResult | None) -> Iterator[LogLine]:
        """What the result has beyond it, and lines that have no end."""
        for name, text in (("stdout", result.stdout), ("stderr", result.stderr)) if result else ():
            yield from self._splitters[name].end(text)
        if result is None:
            for splitter in self._splitters.values():
                yield from splitter.end("")


class _Watch:
    """Which attempt's output is being read, while the job is followed. ``attempt``: the one that is read."""

    def __init__(self, job: "ComputeHordeJob") -> None:
        self.attempt = begun_attempt(job.status_history)
        self._job = job
        self._reading: asyncio.Timeout | None = None
        self._news = asyncio.Event()
        self._following = asyncio.create_task(follow_until(job, self._look))
        self._following.add_done_callback(lambda _: self._news.set())

    async def next(self, pieces: AsyncIterator[OutputPiece]) -> OutputPiece | None:
        """The next piece; None at the end, or when another attempt has begun."""
        if self._is_over():
            return None
        self._reading = asyncio.timeout(None)
        try:
            return await _next(pieces, self._reading)
        finally:
            self._reading = None

    async def has_ended(self) -> bool:
        """Wait until the job has ended (True), or another attempt, which is to be read then, has begun (False).

        :raises ComputeHordeError: the job cannot be followed.
        """
        await self._news.wait()
        if self._following.done():
            self._following.result()
            return True
        self._news.clear()
        self.attempt = begun_attempt(self._job.status_history)
        return False

    async def stop(self) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)

    def _is_over(self) -> bool:
        return begun_attempt(self._job.status_history) != self.attempt

    async def _look(self) -> bool:
        """The job has changed. Its end breaks nothing off: the last of its output may be on the way."""
        if self._is_over():
            self._news.set()
            if self._reading is not None:
                self._reading.reschedule(0)
        return False


@asynccontextmanager
async def _watching(job: "ComputeHordeJob") -> AsyncIterator[_Watch]:
    watch = _Watch(job)
    try:
        yield watch
    finally:
        await watch.stop()


async def _next(pieces: AsyncIterator[OutputPiece], scope: asyncio.Timeout) -> OutputPiece | None:
    """The next piece; None at the end, or when ``scope`` ran out first."""
    try:
        async with scope:
            return await anext(pieces, None)
    except TimeoutError:
        if not scope.expired():
            raise
        return None


@asynccontextmanager
async def _output(job: "ComputeHordeJob") -> AsyncIterator[AsyncIterator[OutputPiece]]:
    """What the horde tells while the job runs; the connection is closed however the reading ends."""
    pieces = job._client._horde.output(job.uuid)
    try:
        yield pieces
    finally:
        if close := getattr(pieces, "aclose", None):
            await close()

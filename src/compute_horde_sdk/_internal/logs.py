"""``job.logs``: the lines of a job's output, as it runs and from its result."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from compute_horde_sdk._internal.lines import LineSplitter, LogLine
from compute_horde_sdk._internal.models import ComputeHordeJobResult
from compute_horde_sdk._internal.port import OutputPiece

if TYPE_CHECKING:  # the job imports this
    from compute_horde_sdk._internal.job import ComputeHordeJob

QUIET_S = 3.0
"""How long nothing may come before "what there is by now" is complete."""


async def job_lines(job: "ComputeHordeJob", follow: bool, quiet_s: float = QUIET_S) -> AsyncIterator[LogLine]:
    """See ``ComputeHordeJob.logs``."""
    splitters = {"stdout": LineSplitter("stdout"), "stderr": LineSplitter("stderr")}
    if not follow and job.status.is_in_progress():
        await job.refresh_from_facilitator()
    if job.status.is_in_progress():
        async with _output(job) as pieces:
            while piece := await _next(pieces, None if follow else quiet_s):
                for line in splitters[piece.stream].feed(piece.offset, piece.text):
                    yield line
        if follow:
            await job.wait()
    for line in _ending(splitters, job.result):
        yield line


def _ending(splitters: dict[str, LineSplitter], result: ComputeHordeJobResult | None) -> Iterator[LogLine]:
    for name, text in (("stdout", result.stdout), ("stderr", result.stderr)) if result else ():
        yield from splitters[name].end(text)
    if result is None:
        for splitter in splitters.values():
            yield from splitter.end("")


async def _next(pieces: AsyncIterator[OutputPiece], within_s: float | None) -> OutputPiece | None:
    """The next piece; None at the end, or when none came in time."""
    try:
        async with asyncio.timeout(within_s) as scope:
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

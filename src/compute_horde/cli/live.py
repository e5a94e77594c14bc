"""A job's output line by line, each line shown once."""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from compute_horde.cli.as_json import one_line
from compute_horde.cli.terminal import note, write_output
from compute_horde_sdk.v1 import ComputeHordeError, ComputeHordeJob, LogLine

T = TypeVar("T")
StreamName = Literal["stdout", "stderr"]
LAST_LINES_S = 3.0
"""How long the output may lag behind the job's end before the rest is taken from the result."""


class Output:
    """Writes lines to where they belong.

    ``only``: leaves the other stream out. ``before``: called before anything is written.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        only: StreamName | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._as_json, self._only, self._before = as_json, only, before
        self._shown: Counter[str] = Counter()
        self._attempt = 1
        self._whole = False

    async def show_all(self, job: ComputeHordeJob, *, follow: bool) -> None:
        """What the job printed; with ``follow``, until it has ended.

        :raises ComputeHordeError: refused, or out of reach.
        """
        async for line in job.logs(follow=follow):
            self._show(line)
        self._whole = True

    async def show_live(self, job: ComputeHordeJob) -> None:
        """As ``show_all`` with ``follow``, as far as it goes: :meth:`show_rest` makes up for what fails."""
        try:
            await self.show_all(job, follow=True)
        except ComputeHordeError:
            return

    async def show_rest(self, job: ComputeHordeJob) -> None:
        """What a job that has ended printed beyond what was shown."""
        if self._whole:
            return
        skipped: Counter[str] = Counter()
        async for line in job.logs():
            self._turn_to(line.attempt)
            if skipped[line.stream] < self._shown[line.stream] and not line.gap:
                skipped[line.stream] += 1
            else:
                self._write(line)
        self._whole = True

    def _show(self, line: LogLine) -> None:
        self._turn_to(line.attempt)
        self._shown[line.stream] += not line.gap
        self._write(line)

    def _turn_to(self, attempt: int) -> None:
        """Each attempt prints from the beginning."""
        if attempt == self._attempt:
            return
        self._attempt = attempt
        self._shown.clear()
        if not self._as_json:
            self._before()
            note(f"attempt {attempt}:")

    def _write(self, line: LogLine) -> None:
        if self._only not in (None, line.stream):
            return
        self._before()
        if self._as_json:
            write_output(sys.stdout, one_line(_as_object(line)) + "\n")
        elif line.gap or line.stream == "stderr":
            write_output(sys.stderr, line.text + "\n")
        else:
            write_output(sys.stdout, line.text + "\n")


def _as_object(line: LogLine) -> dict[str, str | int]:
    return {"stream": line.stream, "text": line.text, "attempt": line.attempt}


async def beside(showing: Awaitable[None], work: Awaitable[T]) -> T:
    """The work's result. Lines are shown meanwhile, and the last of them get a moment after it.

    What goes wrong with the showing, such as a reader who has gone, ends the work.
    """
    task, working = asyncio.ensure_future(showing), asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, working}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        done = await working
        await asyncio.wait({task}, timeout=LAST_LINES_S)
        if task.done():
            task.result()
        return done
    finally:
        for one in (task, working):
            one.cancel()
        await asyncio.gather(task, working, return_exceptions=True)

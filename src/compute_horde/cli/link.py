"""A command's conversation with its horde: a client, and what the person is told while it works."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self, TypeVar

import typer
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from compute_horde.cli.outcome import exit_code
from compute_horde.cli.place import Place, announced
from compute_horde.cli.progress import progress
from compute_horde.cli.terminal import err, fail, note, printable
from compute_horde.cli.trouble import Trouble
from compute_horde_sdk._internal.wiring import Wiring
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeJob,
)

T = TypeVar("T")
TICK_S = 0.1

Sleep = Callable[[float], Awaitable[None]]


class Connect(Protocol):
    """Makes the client. Tests put their own in as the context's ``obj``."""

    def __call__(self, place: Place, sleep: Sleep) -> ComputeHordeClient: ...


def connect(place: Place, sleep: Sleep) -> ComputeHordeClient:
    """A client for this place, whose pauses between attempts are made by ``sleep``."""
    wiring = Wiring(sleep=sleep)

    class Watched(ComputeHordeClient):
        _wiring = wiring

    return Watched(place.key.load(), place.validator, place.queue, place.facilitator)


class MovedError(Exception):
    """The local horde was started again at another address."""


class Link:
    """Owns the client. ``quiet``: no spinner, whoever watches. Exits readably where no client can be made."""

    def __init__(
        self, ctx: typer.Context, place: Place, *, quiet: bool = False, trouble: Trouble | None = None
    ) -> None:
        self._connect: Connect = ctx.obj or connect
        self._place = place
        self.trouble = trouble or Trouble()
        self._told = False
        self._spins = err.is_terminal and not quiet
        self._spinner: Live | None = None
        try:
            self.client = self._connect(place, self.trouble.sleep)
        except ComputeHordeError as error:
            fail_with(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.client.aclose()

    async def during(
        self, work: Coroutine[Any, Any, T] | asyncio.Future[T], label: Callable[[], str], *, movable: bool = False
    ) -> T:
        """The work's result. Meanwhile a spinner shows ``label`` where a person watches, and trouble is told.

        :raises MovedError: only when ``movable``: the facilitator does not answer, and the local horde is
            elsewhere now; the work was given up.
        """
        task = asyncio.ensure_future(work)
        self._spinner = _spinner(label()) if self._spins else None
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=TICK_S)
                self._tick(label)
                if movable and self._told and self._present_address():
                    raise MovedError
            return task.result()
        finally:
            self.stop_spinning()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def ended(self, job: ComputeHordeJob, timeout: float | None = None) -> ComputeHordeJob:
        """The job when it has ended, as :meth:`all_ended`; another object where the horde is elsewhere now."""
        (ended,) = await self.all_ended([job], timeout)
        return ended

    async def all_ended(
        self,
        jobs: Sequence[ComputeHordeJob],
        timeout: float | None = None,
        told: Callable[[ComputeHordeJob], None] = lambda job: None,
    ) -> list[ComputeHordeJob]:
        """The jobs when all have ended, in their order; each is ``told`` when it has.

        :raises ComputeHordeJobTimeoutError: ``timeout`` seconds passed.
        :raises ComputeHordeError: refused, or out of reach for too long.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        waiting, ended = list(jobs), dict[str, ComputeHordeJob]()
        while True:
            left = None if until is None else max(until - loop.time(), 0)
            try:
                await self.during(_each(waiting, left, ended, told), partial(_stage, jobs, ended), movable=True)
                return [ended[job.uuid] for job in jobs]
            except (MovedError, ComputeHordeConnectionError):
                if not await self.follow_move():
                    raise
            note(f"the local horde is at {self._place.facilitator} now")
            waiting = [await self.client.get_job(job.uuid) for job in jobs if job.uuid not in ended]

    async def follow_move(self) -> bool:
        """Talk to the local horde's present address, where that is another."""
        address = self._present_address()
        if not address:
            return False
        await self.client.aclose()
        self._place = replace(self._place, facilitator=address)
        self.trouble = Trouble()
        self.client = self._connect(self._place, self.trouble.sleep)
        return True

    def stop_spinning(self) -> None:
        """From here on the terminal belongs to the job's output."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    @contextmanager
    def spinner_aside(self) -> Iterator[None]:
        """For the length of the context the terminal can be written to."""
        if self._spinner is not None:
            self._spinner.stop()
        try:
            yield
        finally:
            if self._spinner is not None:
                self._spinner.start(refresh=True)

    def _tick(self, label: Callable[[], str]) -> None:
        if self._spinner is not None:
            self._spinner.update(Spinner("dots", Text(printable(label()))))
        lasting = self.trouble.lasting
        if lasting and not self._told:
            note(f"the facilitator at {self._place.facilitator} does not answer; trying again")
        elif self._told and not lasting:
            note("the facilitator answers again")
        self._told = lasting

    def _present_address(self) -> str:
        """Where the local horde is now; empty when that is where we look, or nobody knows."""
        now = announced(self._place.home).get("facilitator_url", "") if self._place.home else ""
        return now if now != self._place.facilitator else ""


def _spinner(label: str) -> Live:
    """Running. Leaves stdout alone: it may be another terminal's, or a file's."""
    live = Live(
        Spinner("dots", printable(label)),
        console=err,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    live.start(refresh=True)
    return live


async def _each(
    waiting: Sequence[ComputeHordeJob],
    timeout: float | None,
    ended: dict[str, ComputeHordeJob],
    told: Callable[[ComputeHordeJob], None],
) -> None:
    """Wait for all at once; the first error ends it."""

    async def one(job: ComputeHordeJob) -> None:
        await job.wait(timeout)
        if job.uuid not in ended:  # the same job may have been named twice
            ended[job.uuid] = job
            told(job)

    tasks = [asyncio.ensure_future(one(job)) for job in waiting]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _stage(jobs: Sequence[ComputeHordeJob], ended: Mapping[str, ComputeHordeJob]) -> str:
    """What the spinner says."""
    if len(jobs) == 1:
        return f"job {jobs[0].uuid}: {progress(jobs[0])}"
    return f"{len(ended)} of {len({job.uuid for job in jobs})} jobs have ended"


@asynccontextmanager
async def failing_readably() -> AsyncIterator[None]:
    """What the library raises becomes a message, a hint and an exit code."""
    try:
        yield
    except ComputeHordeError as error:
        fail_with(error)


def fail_with(error: ComputeHordeError) -> NoReturn:
    fail(error.message, error.hint, exit_code(error))

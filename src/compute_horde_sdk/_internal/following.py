"""Waiting with something to do at every change: callbacks, and waits that end before the job does."""

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from compute_horde_sdk._internal.exceptions import ComputeHordeJobTimeoutError, ComputeHordeValidationError
from compute_horde_sdk._internal.models import ComputeHordeJobStatus, ComputeHordeJobStatusEntry, QueuePlace
from compute_horde_sdk._internal.waiting import follow

if TYPE_CHECKING:  # the job imports this
    import datetime as dt

    from compute_horde_sdk._internal.job import ComputeHordeJob

FOREVER_S = 1e9
"""Event loops count in floats, which some numbers of seconds do not fit into."""


def check_timeout(timeout: object) -> None:
    """:raises ComputeHordeValidationError: neither seconds nor None."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= math.inf:
        raise ComputeHordeValidationError("timeout must be seconds, 0 or more, or None", field="timeout")


@asynccontextmanager
async def deadline(timeout: float | None, late: Callable[[], str]) -> AsyncIterator[None]:
    """Cancels what is inside after ``timeout`` seconds.

    :raises ComputeHordeJobTimeoutError: with the text of ``late``.
    """
    try:
        async with asyncio.timeout(None if timeout is None else min(timeout, FOREVER_S)) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise ComputeHordeJobTimeoutError(late()) from None


class Teller:
    """Calls ``callback(job, entry)`` once for each entry of the job's history, and awaits what it returns."""

    def __init__(
        self, job: "ComputeHordeJob", callback: Callable[["ComputeHordeJob", ComputeHordeJobStatusEntry], object]
    ) -> None:
        self._job = job
        self._callback = callback
        self._told: set[tuple[ComputeHordeJobStatus, dt.datetime]] = set()

    async def tell(self) -> None:
        """Exceptions of the callback pass through."""
        for entry in list(self._job.status_history):
            key = (entry.status, entry.created_at)
            if key not in self._told:
                self._told.add(key)
                await awaited(self._callback(self._job, entry))


class PlaceTeller:
    """Calls ``callback(job, place)`` with each new place of a job that waits, and awaits what it returns."""

    def __init__(
        self, job: "ComputeHordeJob", callback: Callable[["ComputeHordeJob", QueuePlace], object]
    ) -> None:
        self._job = job
        self._callback = callback
        self._told: QueuePlace | None = None

    async def tell(self) -> None:
        """Exceptions of the callback pass through."""
        place = self._job.queue
        told, self._told = self._told, place
        if place is not None and place != told:
            await awaited(self._callback(self._job, place))


class Tells(Protocol):
    """Hears of every change."""

    async def tell(self) -> None: ...


async def follow_telling(job: "ComputeHordeJob", tellers: Sequence[Tells]) -> None:
    """Follow the job to its end; tell what is known of it now, and then what is new after every change."""

    async def tell() -> bool:
        for teller in tellers:
            await teller.tell()
        return False

    await tell()
    if job.status.is_in_progress():
        await follow_until(job, tell)


async def awaited(returned: object) -> None:
    """What a callback returned, awaited if it can be."""
    if inspect.isawaitable(returned):
        await returned


async def follow_until(job: "ComputeHordeJob", enough: Callable[[], Awaitable[bool]]) -> None:
    """Follow the job until it has ended or ``enough()``, asked now and after every change, says so.

    Slow answers of ``enough`` hold nobody up: the job is followed meanwhile. Leaves no task behind.
    """
    changed = asyncio.Event()
    following = asyncio.create_task(follow(job, job._client._horde, job._client._wiring))
    following.add_done_callback(lambda _: changed.set())
    job._watchers.add(changed)
    try:
        while True:
            changed.clear()
            over = following.done()
            if await enough():
                return
            if over:
                following.result()
                return
            await changed.wait()
    finally:
        job._watchers.discard(changed)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

"""Waiting that a cancellation must not cut short."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from compute_horde.executor.errors import JobFailure
from compute_horde.executor.timing import Clocks
from compute_horde.transport.backoff import backoff

P = ParamSpec("P")
T = TypeVar("T")


async def unbroken(work: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]] | None = None) -> T:
    """Do ``work`` to its end even when cancelled; then ``undo`` its result and raise the cancellation."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:
            break
    if cancelled is None:
        return task.result()
    if undo is not None and task.exception() is None:
        await unbroken(_call(undo, task.result()))
    elif not task.cancelled():
        task.exception()
    raise cancelled


async def _call(function: Callable[[T], Awaitable[None]], argument: T) -> None:
    await function(argument)


async def in_thread(stop: threading.Event, function: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
    """``function`` in a thread. Cancelled, it sets ``stop`` and waits for the thread's end before it raises."""
    working = asyncio.ensure_future(asyncio.to_thread(function, *args, **named))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        stop.set()
        await unbroken(settled(working))
        raise


async def engine_willing(
    attempt: Callable[[], Coroutine[Any, Any, T]], until: float, clocks: Clocks, *, first_s: float = 0.1
) -> T:
    """``attempt``, again and again while the container engine does not answer: one that is restarted is back in
    seconds. The last begins no later than ``until`` (``elapsed``).

    :raises JobFailure: its failure, ``engine_unavailable`` only then.
    """
    pauses = backoff(first_s=first_s, cap_s=2)
    while True:
        try:
            return await attempt()
        except JobFailure as failed:
            left = until - clocks.elapsed()
            if failed.problem.code != "engine_unavailable" or left <= 0:
                raise
        await asyncio.sleep(min(next(pauses), left))


async def settled(work: "asyncio.Future[T]") -> None:
    """Its end, whatever it brought."""
    await asyncio.wait({work})
    if not work.cancelled():
        work.exception()

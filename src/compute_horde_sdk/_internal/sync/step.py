"""One coroutine on its way through the portal's loop, and the reasons why it may not go there."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from compute_horde_sdk._internal.exceptions import ComputeHordeConnectionError, ComputeHordeUnsupportedError

T = TypeVar("T")


class Step(Generic[T]):
    """``outcome``: for the thread that waits. The methods are called in the loop.

    :param running: where its task is found while it runs.
    """

    def __init__(self, work: Coroutine[Any, Any, T], running: set[asyncio.Task[Any]]) -> None:
        self.outcome: Future[T] = Future()
        self._work = work
        self._running = running
        self._task: asyncio.Task[T] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work)
        self._running.add(self._task)
        self._task.add_done_callback(self._settle)

    def cancel(self) -> None:
        """Also before it was started, which then does not come any more."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._work.close()
            self.outcome.set_exception(closed_error())

    def _settle(self, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if task.cancelled():  # by the close; after Ctrl-C nobody looks
            self.outcome.set_exception(closed_error())
        elif error := task.exception():
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


def closed_error() -> ComputeHordeConnectionError:
    return ComputeHordeConnectionError("the client was closed", code="client_closed", hint="", retryable=False)


def forked_error() -> ComputeHordeConnectionError:
    return ComputeHordeConnectionError(
        "the client was used before this process was forked, and its connections stayed with the parent",
        code="client_forked",
        hint="Make a client in each process.",
        retryable=False,
    )


def callback_error() -> ComputeHordeUnsupportedError:
    return ComputeHordeUnsupportedError(
        "a callback called the client that is calling it, which would wait for itself for ever",
        code="sync_call_in_callback",
        hint="Call the client when the callback has returned, or from another thread.",
    )

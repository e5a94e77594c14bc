"""One computation for all who wait for it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Starts with the first caller, ends for all at once, and is cancelled when the last caller goes away."""

    def __init__(self, start: Callable[[], Coroutine[None, None, T]]) -> None:
        self._start = start
        self._current: _Running[T] | None = None

    async def __call__(self) -> T:
        """The result of the computation that is going on; of a new one when there is none."""
        running = self._current
        if running is None or running.is_over():
            running = self._current = _Running(asyncio.create_task(self._start()))
        running.waiting += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiting -= 1
            if not running.waiting:
                self._current = None if self._current is running else self._current
                await running.stop()


class _Running(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0

    def is_over(self) -> bool:
        """Done, or left behind in an event loop that is no more."""
        return self.task.done() or self.task.get_loop() is not asyncio.get_running_loop()

    async def stop(self) -> None:
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task})

"""One run of something for everyone who wants it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Calls that overlap wait for one run and get its outcome, an error included. In one event loop.

    The run goes on while anybody waits for it; when the last one is cancelled, it is, too.
    """

    def __init__(self, run: Callable[[], Awaitable[T]]) -> None:
        self._run = run
        self._task: asyncio.Task[T] | None = None
        self._waiting = 0

    async def __call__(self) -> T:
        task = self._task
        if task is None:
            task = self._task = asyncio.create_task(self._once())
            self._waiting = 0
        self._waiting += 1
        try:
            return await asyncio.shield(task)
        finally:
            if self._task is task:
                self._waiting -= 1
                if task.done():
                    self._task = None
                elif not self._waiting:
                    self._task = None
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

    async def _once(self) -> T:
        return await self._run()

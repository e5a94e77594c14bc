"""An async iterator handed over one item at a time, each when it is asked for."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """All of the iterator's code, its closing too, runs in one task, as ``async for`` would run it.

    Everything but the construction happens in the event loop.
    """

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = items
        self._wanted: asyncio.Queue[None] = asyncio.Queue()
        self._found: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def next(self) -> tuple[T] | None:
        """The next item, alone in a tuple; None at the end. Raises what the iterator raises."""
        if self._task is None:
            self._task = asyncio.create_task(self._pump())
        self._wanted.put_nowait(None)
        found = await self._found.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def cancel(self) -> None:
        """Have the iterator closed, without waiting for it."""
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        """Close the iterator. Raises what its closing raises."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])
            if not self._task.cancelled() and (error := self._task.exception()):
                raise error

    async def _pump(self) -> None:
        try:
            await self._hand_over()
        finally:
            if isinstance(self._items, AsyncGenerator):
                await self._items.aclose()

    async def _hand_over(self) -> None:
        await self._wanted.get()
        try:
            async for item in self._items:
                self._found.put_nowait((item,))
                await self._wanted.get()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # the one who asked has to hear of it
            self._found.put_nowait(error)
        else:
            self._found.put_nowait(None)

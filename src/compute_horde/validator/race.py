"""Attempts that begin one after another, without waiting long for those that are silent."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

Attempt = Callable[[], Coroutine[Any, Any, T | None]]


async def first_of(
    attempts: Iterable[Attempt[T]], stagger_s: float, leave: Callable[[asyncio.Task[T | None]], None]
) -> T | None:
    """The first result that is not None; None when there is none.

    The next attempt begins when one has failed, or after ``stagger_s`` seconds without any news. Those that are
    under way when one has succeeded are given to ``leave``, which sees to what they come to. When this is
    cancelled they are cancelled as well, and given to ``leave``, too.
    """
    waiting, trying = deque(attempts), list[asyncio.Task[T | None]]()
    try:
        while waiting or trying:
            if waiting:
                trying.append(asyncio.create_task(waiting.popleft()()))
            patience = stagger_s if waiting else None
            done, _ = await asyncio.wait(trying, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in trying if task in done]:
                trying.remove(task)
                if (result := task.result()) is not None:
                    return result
        return None
    except asyncio.CancelledError:
        for task in trying:
            task.cancel()
        raise
    finally:
        for task in trying:
            leave(task)

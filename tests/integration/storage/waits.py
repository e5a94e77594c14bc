"""Waiting for what happens in another process."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 20) -> None:
    """Return as soon as it holds."""
    for _ in range(int(within_s / 0.01)):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not so within {within_s} s")

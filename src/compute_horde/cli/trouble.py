"""Notices from outside that the library keeps trying again, so that a person can be told."""

import asyncio
import time
from collections.abc import Callable

TELL_AFTER_S = 3.0
FORGET_AFTER_S = 12.0
"""The library's pauses are 5 s at most, and an attempt to connect takes 5 s at most."""


class Trouble:
    """The library pauses after each failed attempt: pauses that follow one another closely are trouble."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = self._last = -FORGET_AFTER_S

    async def sleep(self, seconds: float) -> None:
        """A pause of the library."""
        self.note()
        await asyncio.sleep(seconds)

    def note(self) -> None:
        """An attempt failed just now."""
        now = self._clock()
        if now - self._last >= FORGET_AFTER_S:
            self._since = now
        self._last = now

    @property
    def lasting(self) -> bool:
        """Whether attempts have been failing for some seconds, and still are."""
        return self._clock() - self._last < FORGET_AFTER_S and self._last - self._since >= TELL_AFTER_S

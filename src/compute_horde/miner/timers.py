"""Deadlines of one job that no change of the wall clock moves and no suspension of the machine stretches."""

import asyncio
from collections.abc import Callable

from compute_horde.lifecycle.clock import RECHECK_SECONDS, elapsed


class Timers:
    """Named timers. ``elapsed``: seconds on a clock that counts suspension; it is looked at every ``recheck_s``,
    since the event loop's own clock stands still meanwhile.
    """

    def __init__(self, elapsed: Callable[[], float] = elapsed, recheck_s: float = RECHECK_SECONDS) -> None:
        self._elapsed, self._recheck_s = elapsed, recheck_s
        self._running: dict[str, asyncio.TimerHandle] = {}

    def arm(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        """Let ``action`` happen once, unless disarmed or armed anew before."""
        self.disarm(name)
        self._wait(name, self._elapsed() + seconds, action)

    def armed(self, name: str) -> bool:
        return name in self._running

    def disarm(self, name: str) -> None:
        if timer := self._running.pop(name, None):
            timer.cancel()

    def clear(self) -> None:
        """Disarm all."""
        for name in list(self._running):
            self.disarm(name)

    def _wait(self, name: str, at: float, action: Callable[[], None]) -> None:
        pause = min(max(0.0, at - self._elapsed()), self._recheck_s)
        loop = asyncio.get_running_loop()
        self._running[name] = loop.call_later(pause, self._look, name, at, action)

    def _look(self, name: str, at: float, action: Callable[[], None]) -> None:
        if at > self._elapsed():
            self._wait(name, at, action)
            return
        del self._running[name]
        action()

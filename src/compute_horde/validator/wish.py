"""A user's wish to cancel one job, and how it breaks off what the job's driver waits for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from compute_horde.lifecycle.clock import RECHECK_SECONDS, elapsed


class CancelWished(Exception):  # noqa: N818 - an event more than an error
    """The user wants the job to be cancelled; raised once, where its driver waits next."""


class CancelWish:
    """The wish comes once and stays. Until it is heeded, nothing of the job is waited for any more."""

    def __init__(self, *, wished: bool = False, clock: Callable[[], float] = elapsed) -> None:
        """``wished``: in an earlier run already. ``clock``: of the waits; it goes on while the machine sleeps."""
        self.wished, self._heeded = wished, False
        self._clock = clock
        self._wait: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def heeded(self) -> bool:
        """Whether the driver has turned to ending the job."""
        return self._heeded

    def wish(self) -> None:
        """Break off the wait that is going on, in the next turn of the loop. Wishing twice changes nothing."""
        self.wished = True
        wait = self._wait
        if not self._heeded and wait is not None and not wait.expired():
            wait.reschedule(asyncio.get_running_loop().time())

    def heed(self) -> None:
        """From here on waits last as long as they want to."""
        self._heeded = True

    def check(self) -> None:
        """:raises CancelWished: there is a wish that was not heeded yet."""
        if self.wished and not self._heeded:
            raise CancelWished

    @contextlib.asynccontextmanager
    async def waiting(self, seconds: float | None) -> AsyncIterator[None]:
        """A block in which the driver waits, for so long at most; one at a time.

        :raises CancelWished: instead of waiting, or of waiting on.
        :raises TimeoutError: the time is over.
        """
        self.check()
        try:
            async with asyncio.timeout(None) as self._wait:
                if seconds is not None:
                    self._look_at_the_clock(self._clock() + seconds)
                yield
        except TimeoutError:
            self.check()
            raise
        finally:
            self._wait = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look_at_the_clock(self, until: float) -> None:
        """The loop's timers stand still while the machine is suspended: a long wait looks here now and then."""
        wait, loop, left = self._wait, asyncio.get_running_loop(), until - self._clock()
        if wait is None or wait.expired() or (self.wished and not self._heeded):
            return
        if left <= RECHECK_SECONDS:
            wait.reschedule(loop.time() + max(0.0, left))
        else:
            self._timer = loop.call_later(RECHECK_SECONDS, self._look_at_the_clock, until)

"""A user's wish to cancel one job, and how it breaks off what the job's driver waits for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class CancelWished(Exception):  # noqa: N818 - an event more than an error
    """The user wants the job to be cancelled; raised once, where its driver waits next."""


class CancelWish:
    """The wish comes once and stays. Until it is heeded, nothing of the job is waited for any more."""

    def __init__(self, *, wished: bool = False) -> None:
        """``wished``: in an earlier run already."""
        self.wished, self._heeded = wished, False
        self._wait: asyncio.Timeout | None = None

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
            async with asyncio.timeout(seconds) as self._wait:
                yield
        except TimeoutError:
            self.check()
            raise
        finally:
            self._wait = None

"""What the database does not take now is kept in memory, and tried again until it does."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.telemetry.outages import Outages
from compute_horde.transport.backoff import backoff

log = structlog.get_logger(__name__)

T = TypeVar("T")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0


class Stopping(Exception):  # noqa: N818 - an event more than an error
    """The miner stops before something could be stored. Whoever sent it has not been told that it was."""


class Retries:
    """One for the whole miner. Whoever calls :meth:`until_done` holds what is to be stored meanwhile."""

    def __init__(self, outages: Outages) -> None:
        self._outages = outages
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Whatever waits for its next attempt gives up, and so does what fails from now on."""
        self._stopping.set()

    async def until_done(self, work: Callable[[], Awaitable[T]], what: str) -> T:
        """The answer of ``work``, which is called again while the database is full or away.

        It must do no harm when it is repeated although it had been done: a connection that is lost while it
        commits leaves that open.

        :raises Stopping: the miner stops.
        """
        pauses = backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        failed = False
        while True:
            try:
                answer = await work()
            except DatabaseUnavailable as error:
                self._outages.failed()
                report = log.debug if failed else log.error
                report("the database fails; trying again", what=what, error=str(error))
                failed = True
                await self._rest(next(pauses))
            else:
                self._outages.worked()
                if failed:
                    log.warning("the database works again", what=what)
                return answer

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        if self._stopping.is_set():
            raise Stopping("the miner stops")

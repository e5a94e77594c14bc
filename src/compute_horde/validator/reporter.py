"""Tells facilitators where waiting jobs stand: at most once a second, and only what has changed."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from compute_horde.protocol.base import Message
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.facilitator_validator import V0QueueUpdate
from compute_horde.protocol.scheduling import QueuedJob
from compute_horde.validator.places import PlacesNow
from compute_horde.validator.queue.places import Places

EVERY_SECONDS = 1.0
REPEAT_SECONDS = 15.0
"""Estimates move although nothing happens."""


class Reporter:
    """``tell`` sends to the facilitator that is connected, if it knows of queues."""

    def __init__(
        self, places: PlacesNow, tell: Callable[[Message, Extension], bool], every_s: float = EVERY_SECONDS
    ) -> None:
        self._places, self._tell, self._every_s = places, tell, every_s
        self._reported = Places()
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Jobs began or ceased to wait, or executors came or went."""
        self._changed.set()

    def connected(self) -> None:
        """A facilitator has let us in: it is told everything."""
        self._reported.forget()
        self._changed.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPEAT_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            self._report(self._places.all())
            await asyncio.sleep(self._every_s)

    def _report(self, now: Sequence[QueuedJob]) -> None:
        for chunk in self._reported.changed(now):
            if not self._tell(V0QueueUpdate(jobs=chunk), Extension.QUEUE):
                self._reported.forget()
                return

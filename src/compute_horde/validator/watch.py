"""While jobs wait, one connection to each of their miners that tells how many executors are free."""

import asyncio
import contextlib
import functools
from collections.abc import Iterable

import structlog

from compute_horde.chain.port import MinerEndpoint
from compute_horde.transport.channel import ChannelClosed, DialFailed
from compute_horde.validator.dispatch import Dispatcher
from compute_horde.validator.matcher import Matcher
from compute_horde.validator.supply import Supply

log = structlog.get_logger(__name__)

LOOK_AGAIN_SECONDS = 30.0
"""The list of miners changes without a word."""

PAUSE_SECONDS = 0.1
"""Many changes at a time are one."""


class Watches:
    """Opened and closed as jobs begin and cease to wait. Who is away is found again by a job's own attempt."""

    def __init__(self, matcher: Matcher, supply: Supply, dispatcher: Dispatcher) -> None:
        self._matcher, self._supply, self._dispatcher = matcher, supply, dispatcher
        self._open: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Jobs began or ceased to wait, or a miner was reached or lost."""
        self._changed.set()

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                self._changed.clear()
                self._adjust({miner.hotkey: miner for miner in self._wanted()})
                await asyncio.sleep(PAUSE_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_SECONDS if self._open else None):
                        await self._changed.wait()
        finally:
            self._adjust({})

    def _wanted(self) -> Iterable[MinerEndpoint]:
        for pool in self._matcher.waiting_pools():
            for miner in self._matcher.miners_of(pool):
                if self._supply.tells(miner.hotkey) and not self._supply.lacks(miner.hotkey, pool.executor_class):
                    yield miner

    def _adjust(self, wanted: dict[str, MinerEndpoint]) -> None:
        for hotkey in [name for name in self._open if name not in wanted]:
            self._open.pop(hotkey).cancel()
        for hotkey, miner in wanted.items():
            if hotkey not in self._open and self._supply.away_for(hotkey) is None:
                self._open[hotkey] = task = asyncio.create_task(self._watch(miner))
                task.add_done_callback(functools.partial(self._closed, hotkey))

    def _closed(self, hotkey: str, task: "asyncio.Task[None]") -> None:
        if self._open.get(hotkey) is task:
            del self._open[hotkey]

    async def _watch(self, miner: MinerEndpoint) -> None:
        """One connection, from its opening to its loss; a job's attempt finds the miner again."""
        link = self._dispatcher.link(miner, None)
        try:
            await self._dispatcher.open(link)
            while True:
                await link.receive()
        except (ChannelClosed, DialFailed) as error:
            log.info("a miner is watched no longer", miner=miner.hotkey, error=str(error))
            self._supply.lost(miner.hotkey)
            self._matcher.wake()
        finally:
            await link.close()

"""Which miners a job may go to, and the connections to them (section 11)."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from compute_horde.chain.port import Chain, MinerEndpoint
from compute_horde.lifecycle.clock import elapsed
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.signing import Signer
from compute_horde.telemetry.vocabulary import Refusal
from compute_horde.transport.channel import Dialer
from compute_horde.validator import routing
from compute_horde.validator.logs import LogDesk
from compute_horde.validator.matcher import Pool
from compute_horde.validator.miner_link import MinerLink, Switchboard, ignored
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.rows import Job
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.supply import Supply

log = structlog.get_logger(__name__)

STAGGER_SECONDS = 1.0
"""A miner that has said nothing for so long is no longer the only one that is tried."""


class Dispatcher:
    """Makes links to miners. Nothing is promised to a miner by opening one."""

    def __init__(
        self,
        settings: ValidatorSettings,
        signer: Signer,
        chain: Chain,
        dialer: Dialer,
        reputation: Reputation,
        supply: Supply,
        logs: LogDesk,
        refused: Callable[[Refusal], None] = ignored,
    ) -> None:
        """``refused`` counts what miners say and nobody acts upon."""
        self._settings, self._signer, self._chain, self._dialer = settings, signer, chain, dialer
        self._reputation, self._supply, self._logs = reputation, supply, logs
        self._refused = refused
        self._switchboard: Switchboard = {}
        self._left: set[asyncio.Task[Any]] = set()
        self.stagger_s = STAGGER_SECONDS
        self._dice = random.Random()  # noqa: S311 - spreads load, keeps no secret

    def link(self, miner: MinerEndpoint, job: Job | None) -> MinerLink:
        """A link that is not open yet; with no job it only hears what the miner says of itself."""
        return MinerLink(
            self._dialer,
            self._signer,
            miner,
            job.uuid if job else "",
            self._switchboard,
            self._logs,
            self._locate,
            attempt=job.attempt if job else 1,
            ears=self._supply,
            refused=self._refused,
        )

    async def open(self, link: MinerLink) -> routing.Manifest:
        """Open the link and read the miner's manifest. :raises DialFailed: it cannot be reached."""
        limit = self._settings.miner_connect_limit
        deadline = elapsed() + limit
        await link.open(limit)
        return await link.manifest(max(0.0, deadline - elapsed()))

    async def has_class(self, link: MinerLink, executor_class: ExecutorClass) -> bool:
        """Open the link and see what the miner has. :raises DialFailed: it cannot be reached."""
        return routing.offers(await self.open(link), executor_class)

    def candidates(self, pool: Pool) -> Sequence[MinerEndpoint]:
        """The miners that may get jobs of the pool, in the order in which to try them."""
        if pool.trusted:
            trusted = self._trusted_miner()
            return [trusted] if trusted else []
        return routing.choose(
            self._chain.directory().miners,
            pool.executor_class,
            self._reputation.manifests,
            self._reputation.recent(time.time()),
            self._dice,
        )

    def _locate(self, miner: MinerEndpoint) -> MinerEndpoint:
        """Where a miner listens now: it may have been restarted elsewhere while its job ran."""
        if miner.hotkey == TRUSTED_MINER_HOTKEY:
            return self._trusted_miner() or miner
        listed = self._chain.directory().miners
        return next((entry for entry in listed if entry.hotkey == miner.hotkey), miner)

    def _trusted_miner(self) -> MinerEndpoint | None:
        address, port = self._settings.trusted_miner_address, self._settings.trusted_miner_port
        if address is None or port is None:
            return None
        return MinerEndpoint(hotkey=TRUSTED_MINER_HOTKEY, address=address, port=port)

    def leave(self, work: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
        """Let something that nobody waits for go on to its end."""
        task = work if isinstance(work, asyncio.Task) else asyncio.create_task(work)
        self._left.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("what was left to itself failed", exc_info=error)

    async def close(self) -> None:
        """Give up what nobody waits for."""
        left = list(self._left)
        for task in left:
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

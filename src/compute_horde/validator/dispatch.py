"""Finds the miner that gets a job: the first of the candidates, in order, that has the class (section 11)."""

import asyncio
import functools
import random
import time
from collections.abc import Sequence

import structlog

from compute_horde.chain.port import Chain, MinerEndpoint
from compute_horde.lifecycle import failures
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.signing import Signer
from compute_horde.transport.channel import Dialer, DialFailed
from compute_horde.validator import outcomes, routing
from compute_horde.validator.journal import Journal
from compute_horde.validator.logs import LogDesk
from compute_horde.validator.miner_link import MinerLink, Switchboard
from compute_horde.validator.race import first_of
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.store import Job

log = structlog.get_logger(__name__)


STAGGER_SECONDS = 1.0
"""A miner that has said nothing for so long is no longer the only one that is tried."""


class Unroutable(Exception):  # noqa: N818 - what the job is
    """No miner can be given the job. ``outcome`` is how it ends."""

    def __init__(self, outcome: outcomes.Outcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.state.value)


class Dispatcher:
    """Opens the connection over which a job will be driven. Nothing is promised to a miner meanwhile."""

    def __init__(
        self,
        settings: ValidatorSettings,
        signer: Signer,
        chain: Chain,
        dialer: Dialer,
        journal: Journal,
        reputation: Reputation,
        logs: LogDesk,
    ) -> None:
        self._settings, self._signer, self._chain, self._dialer = settings, signer, chain, dialer
        self._journal, self._reputation, self._logs = journal, reputation, logs
        self._switchboard: Switchboard = {}
        self._left: dict[asyncio.Task[MinerLink | None], asyncio.Task[None]] = {}
        self.stagger_s = STAGGER_SECONDS
        self._dice = random.Random()  # noqa: S311 - spreads load, keeps no secret

    def link(self, miner: MinerEndpoint, job: Job) -> MinerLink:
        """A link that is not open yet."""
        return MinerLink(self._dialer, self._signer, miner, job.uuid, self._switchboard, self._logs, self._locate)

    def _locate(self, miner: MinerEndpoint) -> MinerEndpoint:
        """Where a miner listens now: it may have been restarted elsewhere while its job ran."""
        if miner.hotkey == TRUSTED_MINER_HOTKEY:
            return self._configured_trusted_miner() or miner
        listed = self._chain.directory().miners
        return next((entry for entry in listed if entry.hotkey == miner.hotkey), miner)

    async def dispatch(self, job: Job) -> MinerLink:
        """An open link to a miner that has the class.

        :raises Unroutable: there is none.
        """
        candidates = self._candidates(job)
        refusals: list[str] = []
        attempts = [functools.partial(self._try, miner, job, refusals) for miner in candidates]
        link = await first_of(attempts, self.stagger_s, self._leave)
        if link is None:
            raise Unroutable(_nobody(job, len(candidates), len(refusals)))
        return link

    async def _try(self, miner: MinerEndpoint, job: Job, refusals: list[str]) -> MinerLink | None:
        link = self.link(miner, job)
        try:
            if await self._has_class(link, job):
                return link
            refusals.append(miner.hotkey)
        except DialFailed as error:
            log.warning("miner unreachable", job=job.uuid, miner=miner.hotkey, error=str(error))
            if miner.hotkey != TRUSTED_MINER_HOTKEY:
                await self._journal.blame(miner.hotkey, job.uuid, "miner_unreachable")
        except asyncio.CancelledError:
            await link.close()
            raise
        await link.close()
        return None

    def _leave(self, attempt: asyncio.Task[MinerLink | None]) -> None:
        """Another miner was faster. The attempt goes on to its limit, so that who is away is known to be away."""
        self._left[attempt] = closing = asyncio.create_task(_close_when_open(attempt))
        closing.add_done_callback(lambda _: self._left.pop(attempt, None))

    async def close(self) -> None:
        """Give up the attempts that nobody waits for."""
        closing = list(self._left.values())
        for attempt in self._left:
            if not attempt.cancelling():
                attempt.cancel()
        await asyncio.gather(*closing, return_exceptions=True)

    async def _has_class(self, link: MinerLink, job: Job) -> bool:
        limit = self._settings.miner_connect_limit
        deadline = time.monotonic() + limit
        await link.open(limit)
        manifest = await link.manifest(max(0.0, deadline - time.monotonic()))
        self._reputation.manifests[link.miner.hotkey] = manifest
        return routing.offers(manifest, job.request.executor_class)

    def _candidates(self, job: Job) -> Sequence[MinerEndpoint]:
        if job.request.on_trusted_miner:
            return [self._trusted_miner()]
        return routing.choose(
            self._chain.directory().miners,
            job.request.executor_class,
            self._reputation.manifests,
            self._reputation.recent(time.time()),
            self._dice,
        )

    def _trusted_miner(self) -> MinerEndpoint:
        if (configured := self._configured_trusted_miner()) is None:
            raise Unroutable(
                outcomes.no_miner(
                    "This validator has no trusted miner",
                    "Send the job without on_trusted_miner, or to a validator that has a trusted miner.",
                )
            )
        return configured

    def _configured_trusted_miner(self) -> MinerEndpoint | None:
        address, port = self._settings.trusted_miner_address, self._settings.trusted_miner_port
        if address is None or port is None:
            return None
        return MinerEndpoint(hotkey=TRUSTED_MINER_HOTKEY, address=address, port=port)


async def _close_when_open(attempt: asyncio.Task[MinerLink | None]) -> None:
    if (link := await attempt) is not None:
        await link.close()


def _nobody(job: Job, tried: int, refused: int) -> outcomes.Outcome:
    wanted = job.request.executor_class.value
    if tried == 0:
        return outcomes.no_miner("No miner is known to this validator", "Wait until miners have registered.")
    if refused == 0:
        who = "The trusted miner" if job.request.on_trusted_miner else f"None of {tried} miners"
        verb = "could not be reached" if job.request.on_trusted_miner else "could be reached"
        return outcomes.horde_failed(failures.problem("miner_unreachable", f"{who} {verb}", tried=tried))
    return outcomes.no_miner(
        f"No miner offers executors of class {wanted}",
        "Choose another executor class, or wait until a miner offers this one.",
        executor_class=wanted,
        tried=tried,
        unreachable=tried - refused,
    )

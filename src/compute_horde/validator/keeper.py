"""Keeps this process's leases, and takes over the work of processes that died or fell silent."""

import asyncio

import structlog

from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.telemetry.outages import Outages
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.validator.claims import Claims
from compute_horde.validator.disk import Disk
from compute_horde.validator.leasing import AT_ONCE, Leases
from compute_horde.validator.live import LiveJobs
from compute_horde.validator.outbox import Outbox

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""How often to look for work that nobody holds."""

RENEWALS = 5
"""In the time of one lease."""


class Keeper:
    """``look_s``: see :data:`LOOK_SECONDS`."""

    def __init__(
        self,
        leases: Leases,
        live: LiveJobs,
        outbox: Outbox,
        claims: Claims,
        disk: Disk,
        metrics: ValidatorMetrics,
        outages: Outages,
        look_s: float = LOOK_SECONDS,
    ) -> None:
        self._leases, self._live, self._outbox, self._claims = leases, live, outbox, claims
        self._disk, self._metrics, self._outages, self._look_s = disk, metrics, outages, look_s

    async def take_over(self) -> None:
        """Take all that nobody holds. :raises DatabaseUnavailable:"""
        while True:
            found = await self._leases.take_over()
            for _, job_uuid in found.statuses:
                self._claims.posted(job_uuid)
            if found.statuses:  # who wrote them may not have lived to see them on the disk
                self._outbox.load(found.statuses, self._disk.begin())
            for job in found.jobs:
                log.info("job resumed", job=job.uuid, status=job.state.value)
                self._live.start(job)
            if found.jobs:
                self._metrics.lease_taken_over(len(found.jobs))
            if len(found.jobs) < AT_ONCE:
                return

    async def run(self) -> None:
        """For ever."""
        await asyncio.gather(self._look(), self._renew())

    async def _look(self) -> None:
        was_away = False
        while True:
            await asyncio.sleep(self._look_s)
            try:
                await self.take_over()
            except DatabaseUnavailable as error:
                was_away = True
                self._outages.failed()
                log.warning("cannot look for work to take over", error=str(error))
            else:
                if was_away:  # a look that succeeds says nothing of those who write
                    self._outages.worked()
                was_away = False

    async def _renew(self) -> None:
        while self._leases.need_renewal:
            await asyncio.sleep(self._leases.lease_s / RENEWALS)
            try:
                await self.renew()
            except DatabaseUnavailable as error:
                log.warning("leases were not renewed", error=str(error))

    async def renew(self) -> None:
        """Hold on to what is ours; what is not any more is dropped. :raises DatabaseUnavailable:"""
        driven = set(self._live.under_way())
        held = set(await self._leases.renew())
        for job_uuid in driven - held:
            if job_uuid in self._live.under_way():
                self._live.drop(job_uuid)

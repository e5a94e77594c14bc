"""Whether the executor can do its work, what it counts, and where operators ask for both."""

import asyncio
import os

from compute_horde.executor.disk import free_bytes
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.runtime import ContainerRuntime
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.telemetry.executor import ExecutorMetrics
from compute_horde.telemetry.health import Check, Health, NotReady, remembered
from compute_horde.telemetry.server import Operations

ENGINE_GOOD_SECONDS = 10.0
"""An engine that has answered is not asked again for so long."""


class Watched:
    """An executor's metrics and health, and their server where the settings name a port."""

    def __init__(self, settings: ExecutorSettings, runtime: ContainerRuntime) -> None:
        self._settings = settings
        self.metrics = ExecutorMetrics()
        self.metrics.sample_disk_free(self._disk_free)
        ready = {"engine": remembered(_engine(runtime), ENGINE_GOOD_SECONDS), "disk": self._has_room}
        self.health = Health(ready)
        self.operations = Operations(
            self.health,
            self.metrics,
            host=settings.operations_host,
            port=settings.operations_port,
            token=settings.operations_token,
            optional=True,
        )

    async def _disk_free(self) -> int:
        return await asyncio.to_thread(free_bytes, await asyncio.to_thread(self._existing))

    def _existing(self) -> os.PathLike[str]:
        """The folder of jobs, or the one that it will be made in."""
        folder = self._settings.folder.absolute()
        return next(found for found in (folder, *folder.parents) if found.exists())

    async def _has_room(self) -> None:
        if await self._disk_free() < self._settings.disk_reserve_bytes:
            raise NotReady("the disk is nearly full")


def _engine(runtime: ContainerRuntime) -> Check:
    async def check() -> None:
        try:
            await runtime.check()
        except JobFailure as failed:  # its text names addresses
            safe = failed.problem.code != "sandbox_unsafe"
            why = "does not answer" if safe else "cannot keep jobs within limits"
            raise NotReady(f"the container engine {why}") from None

    return check

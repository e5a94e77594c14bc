"""The executor: one job at a time from a miner's WebSocket into a container and back."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from compute_horde.executor import folders as job_folders
from compute_horde.executor.counting import Counting
from compute_horde.executor.network import Web, WebClient
from compute_horde.executor.runtime import ContainerRuntime
from compute_horde.executor.session import Session
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.timing import Clocks
from compute_horde.transport.channel import Dialer

if TYPE_CHECKING:  # see counting
    from compute_horde.telemetry.executor import ExecutorMetrics

log = structlog.get_logger(__name__)


class Executor:
    """Runs jobs. ``run`` may be called again, also while another job runs; jobs share nothing but limits of the
    machine. ``runtime`` may be shared between executors; ``close`` leaves it open for the others. ``metrics``:
    None where nobody looks at any.
    """

    def __init__(
        self,
        settings: ExecutorSettings,
        runtime: ContainerRuntime,
        dialer: Dialer,
        web: WebClient | None = None,
        clocks: Clocks | None = None,
        metrics: "ExecutorMetrics | None" = None,
    ) -> None:
        self._settings, self._runtime, self._dialer = settings, runtime, dialer
        self._web, self._clocks = web or Web(settings), clocks or Clocks()
        self._checked, self._metrics = False, metrics
        self._under_way = set[Session]()

    async def warm(self) -> None:
        """Do ahead of the first job what can be done: look at the engine, clear what crashes have left for good.

        :raises JobFailure: ``engine_unavailable`` or ``sandbox_unsafe``.
        """
        folder, wall = self._settings.folder, self._clocks.wall
        await asyncio.to_thread(job_folders.prepare_work_dir, folder)
        if isinstance(self._web, Web):
            await asyncio.to_thread(self._web.prepare)
        await self._runtime.check()
        removed = await self._runtime.remove_leftovers(lambda: job_folders.kept_tokens(folder, wall()))
        await asyncio.to_thread(job_folders.remove_dead, folder, wall())
        if removed:
            log.warning("removed containers of jobs whose executor is gone", count=removed)
        self._checked = True

    async def run(self, miner_url: str, token: str, startup_limit_s: float = 300) -> None:
        """Do the job that ``token`` stands for, tell the miner, and clean up. A job that an executor has left
        unfinished is taken over; while one is at it, wait for its end.

        Returns also when there is no such job or no miner to tell, and when the job was let go of
        (:meth:`release`). Cancelling kills the container.
        """
        session = Session(
            self._settings,
            self._runtime,
            self._dialer,
            self._web,
            self._clocks,
            token,
            self._prepare,
            Counting(self._metrics, self._clocks),
        )
        self._under_way.add(session)
        try:
            await session.run(miner_url, self._clocks.elapsed() + startup_limit_s)
        finally:
            self._under_way.discard(session)
            if session.left_container:
                self._checked = False  # the next job clears it away before it begins

    async def release(self, token: str | None = None) -> None:
        """Let go of a job, or of all: links are closed, folders and containers stay for whoever is given the same
        token. Returns when ``run`` has returned; a job that is not under way is fine.
        """
        chosen = [one.release() for one in self._under_way if token in (None, one.token)]
        await asyncio.gather(*chosen)

    async def close(self) -> None:
        """Nothing is kept open between jobs but the runtime, which belongs to whoever made it."""

    async def _prepare(self) -> None:
        if not self._checked:
            await self.warm()

"""The executor: one job at a time from a miner's WebSocket into a container and back."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import structlog

from compute_horde.executor import folders as job_folders
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.folders import JobFolders
from compute_horde.executor.job import JobRun
from compute_horde.executor.link import LinkLost, MinerLink
from compute_horde.executor.network import Web, WebClient
from compute_horde.executor.patience import unbroken
from compute_horde.executor.runtime import ContainerRuntime
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.protocol.base import Message
from compute_horde.transport.channel import Dialer

log = structlog.get_logger(__name__)


class Executor:
    """Runs jobs. ``run`` may be called again, also while another job runs; jobs share nothing but limits of the
    machine. ``runtime`` may be shared between executors; ``close`` leaves it open for the others.
    """

    def __init__(
        self,
        settings: ExecutorSettings,
        runtime: ContainerRuntime,
        dialer: Dialer,
        web: WebClient | None = None,
    ) -> None:
        self._settings, self._runtime, self._dialer = settings, runtime, dialer
        self._web = web or Web(settings)
        self._checked = False

    async def warm(self) -> None:
        """Do ahead of the first job what can be done: look at the engine, clear what a crash has left.

        :raises JobFailure: ``engine_unavailable`` or ``sandbox_unsafe``.
        """
        await asyncio.to_thread(job_folders.prepare_work_dir, self._settings.folder)
        if isinstance(self._web, Web):
            await asyncio.to_thread(self._web.prepare)
        await self._runtime.check()
        folder = self._settings.folder
        removed = await self._runtime.remove_leftovers(lambda: job_folders.alive_tokens(folder))
        await asyncio.to_thread(job_folders.remove_dead, folder)
        if removed:
            log.warning("removed containers of jobs whose executor is gone", count=removed)
        self._checked = True

    async def run(self, miner_url: str, token: str, startup_limit_s: float = 300) -> None:
        """Do the job that ``token`` stands for, tell the miner, and clean up.

        Returns also when there is no such job or no miner to tell. Cancelling kills the container.
        """
        startup_deadline = asyncio.get_running_loop().time() + startup_limit_s
        link = MinerLink(self._dialer, miner_url, token)
        folders = JobFolders(self._settings.folder, token)
        job = JobRun(self._settings, self._runtime, link, folders, self._web)
        preparing = asyncio.create_task(self._prepare(folders))
        try:
            link.finish(await _while_linked(link, job.run(startup_deadline, preparing)))
        except LinkLost as lost:
            log.warning("the executor gives up a job", why=str(lost))
        finally:
            await unbroken(self._clean_up(link, job, folders, preparing))

    async def close(self) -> None:
        """Nothing is kept open between jobs but the runtime, which belongs to whoever made it."""

    async def _prepare(self, folders: JobFolders) -> None:
        if not self._checked:
            await self.warm()
        folders.create()

    async def _clean_up(
        self, link: MinerLink, job: JobRun, folders: JobFolders, preparing: "asyncio.Task[None]"
    ) -> None:
        delivery = asyncio.create_task(link.drained() if link.finished else link.close())
        await asyncio.wait({preparing})
        try:
            await job.execution.close()
        except JobFailure as error:
            log.error("a job's container could not be removed; the next start will", why=str(error))
        try:
            await asyncio.to_thread(folders.remove)
        except OSError as error:
            log.error("a job's folder could not be removed", why=error.strerror)
        await delivery
        await link.close()


async def _while_linked(link: MinerLink, work: Coroutine[Any, Any, Message]) -> Message:
    """The result of ``work``, which is cancelled when the link is lost for good. :raises LinkLost:"""
    job, lost = asyncio.ensure_future(work), asyncio.ensure_future(link.lost())
    try:
        await asyncio.wait({job, lost}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise LinkLost("the miner is gone")
    finally:
        for task in (job, lost):
            task.cancel()
        await asyncio.wait({job, lost})
        with contextlib.suppress(LinkLost, asyncio.CancelledError):
            lost.result()

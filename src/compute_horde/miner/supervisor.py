"""Each job has a living executor: launched, launched again when it died, killed when its job is over (7.2)."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from compute_horde.lifecycle.failures import problem
from compute_horde.miner.desk import Desk
from compute_horde.miner.job import Job
from compute_horde.miner.launcher import ExecutorLauncher, LaunchedExecutor
from compute_horde.miner.pool import until_ended
from compute_horde.miner.retries import Stopping
from compute_horde.telemetry.logs import bind_job
from compute_horde.transport.backoff import backoff

log = structlog.get_logger(__name__)

RELAUNCHES = 3
"""So often an executor that died before its job was over is replaced by one that takes over."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0


class Supervisor:
    """One task a job, from its acceptance, or the miner's start, until its executor has ended."""

    def __init__(self, desk: Desk, launcher: ExecutorLauncher, miner_url: Callable[[], str]) -> None:
        self._desk, self._launcher, self._miner_url = desk, launcher, miner_url
        self._reconnect_s = desk.settings.executor_reconnect_limit
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job: Job) -> None:
        """Launch an executor for a job. Its place is lent on when the job is over.

        For a job that was restored, the one that is launched stands by if the former one is alive.
        """
        job.watched = True
        task = asyncio.create_task(self._supervise(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Watch no more; executors are left as they are."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _supervise(self, job: Job) -> None:
        with bind_job(job.uuid):
            await self._watch(job)

    async def _watch(self, job: Job) -> None:
        try:
            await self._keep_one_alive(job)
        except Stopping:
            return
        except Exception:
            log.exception("a job's executor is not watched any more", job_uuid=job.uuid)
        if not job.ended:
            self._desk.spawn(self.deserted(job))
        if job.executor_died:
            await self._clear_up(job)
        job.watched = False
        if job.ended and job.slot is not None:
            job.slot.release()

    async def _clear_up(self, job: Job) -> None:
        """One more executor for a job that is over: it is turned away, and removes what the dead one has left."""
        await asyncio.wait({job.over})
        if job.slot is not None:
            job.slot.job_over()
        at_once = asyncio.get_running_loop().create_future()
        at_once.set_result(self._desk.settings.executor_exit_limit)
        try:
            row = job.row
            executor = await self._launcher.launch(row.token, row.executor_class, self._miner_url())
            await until_ended(executor, at_once)
        except Exception as error:
            log.error("what a dead executor left is not removed yet", job_uuid=job.uuid, error=str(error))

    async def _keep_one_alive(self, job: Job) -> None:
        """Return when the job is over, or when nothing more will be launched for it."""
        pauses = backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        for number in range(RELAUNCHES + 1):
            if number or job.restored:
                self._desk.metrics.executor_relaunched()
            if not await self._one(job):
                return
            job.executor_died = True
            await self._silence(job)
            if job.over.done():
                return
            log.warning("an executor ended before its job did", job_uuid=job.uuid, launched=number + 1)
            await _either(job.over, asyncio.sleep(next(pauses)))
            if job.over.done():
                return

    async def _one(self, job: Job) -> bool:
        """One executor from its launch to its end; False: it is no use to launch another."""
        try:
            if executor := await self._launch(job):
                await until_ended(executor, job.over)
        except Exception as error:
            log.error("executor not started", job_uuid=job.uuid, error=str(error))
            if not (job.restored or job.launches):
                found = problem("executor_spinup_failed", f"The miner could not start an executor: {error}")
                await self._desk.fail(job, found)
        job.launches += 1
        return not job.over.done()

    async def _launch(self, job: Job) -> LaunchedExecutor | None:
        """None: the job was over before its executor was there."""
        row = job.row
        launching = asyncio.ensure_future(self._launcher.launch(row.token, row.executor_class, self._miner_url()))
        try:
            either: set[asyncio.Future[Any]] = {launching, job.over}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return launching.result() if launching.done() else None
        finally:
            launching.cancel()

    async def _silence(self, job: Job) -> None:
        """Wait for the end of the connection: what an executor sent before it died is read to the end.

        The connection of one that died may hang, and is cut then. One of before a restart may live on beside the
        stand-by that died, and its connection is its own.
        """
        limit = None if job.restored else self._reconnect_s
        await _either(job.over, job.away.wait(), limit)
        if job.channel is not None and not job.over.done():
            await job.channel.close(1001, "the executor has ended")
            await _either(job.over, job.away.wait(), limit)

    async def deserted(self, job: Job) -> None:
        """Nothing that was launched is alive, and nothing more is launched."""
        job.deserted = True
        if job.channel is None:
            await self.gone(job, "it ended before its job did")

    async def gone(self, job: Job, why: str) -> None:
        """No executor is connected. One of before a restart may be on its way back; any other is lost (G47)."""
        if job.restored:
            job.timers.arm("reconnect", self._reconnect_s, lambda: self._desk.spawn(self._lost(job, why)))
        else:
            await self._lost(job, why)

    async def _lost(self, job: Job, why: str) -> None:
        if not job.ended:
            self._desk.metrics.executor_lost()
        found = problem("executor_disconnected", f"The executor was lost: {why}", state=job.row.state.value)
        await self._desk.fail(job, found)


async def _either(over: "asyncio.Future[float]", other: Any, limit_s: float | None = None) -> None:
    """Return when the job is over, or the other thing has happened, or the time is up."""
    waiting = asyncio.ensure_future(other)
    try:
        either: set[asyncio.Future[Any]] = {over, waiting}
        await asyncio.wait(either, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()

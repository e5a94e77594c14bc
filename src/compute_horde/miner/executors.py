"""Executors at work: launched for a job, connected, lost, back again, gone (sections 7.1 to 7.3)."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from compute_horde.lifecycle.failures import problem
from compute_horde.lifecycle.states import JobState
from compute_horde.miner.cancelling import cancelled
from compute_horde.miner.desk import Desk
from compute_horde.miner.job import Job
from compute_horde.miner.launcher import ExecutorLauncher, LaunchedExecutor
from compute_horde.miner.logs import Asker
from compute_horde.miner.pool import until_ended
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest, empty_answer
from compute_horde.protocol.extensions import Extension, announced
from compute_horde.transport.channel import Channel, ChannelClosed

log = structlog.get_logger(__name__)

LOGS_SEND_SECONDS = 5.0
"""How long an executor may refuse a request for output: whatever else is for it waits meanwhile."""


class Executors:
    """Keeps each job's executor and place in step with the job."""

    def __init__(self, desk: Desk, launcher: ExecutorLauncher, miner_url: Callable[[], str]) -> None:
        self._desk, self._launcher, self._miner_url = desk, launcher, miner_url
        self._limits = desk.settings

    def start(self, job: Job) -> None:
        """Launch an executor for an accepted job; its place is lent on when the job is over."""
        job.watched = True
        self._desk.spawn(self._run(job))

    async def _run(self, job: Job) -> None:
        try:
            if executor := await self._launch(job):
                await until_ended(executor, job.over)
        except Exception as error:
            log.error("executor not started", job_uuid=job.uuid, error=str(error))
            found = problem("executor_spinup_failed", f"The miner could not start an executor: {error}")
            await self._desk.fail(job, found)
        finally:
            if job.slot is not None:
                job.slot.release()
        await self._gone(job)

    async def _launch(self, job: Job) -> LaunchedExecutor | None:
        """None: the job was over before its executor was there."""
        row = job.row
        launching = asyncio.ensure_future(self._launcher.launch(row.token, row.executor_class, self._miner_url()))
        either: set[asyncio.Future[Any]] = {launching, job.over}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return launching.result() if launching.done() else None
        finally:
            launching.cancel()

    async def _gone(self, job: Job) -> None:
        """The launcher says that the executor has ended. What it has sent is read to the end first."""
        job.executor_ended = True
        if job.ended:
            return
        if job.channel is None:
            await self._lost(job, "it ended before its job did")
        else:
            job.arm("reconnect", self._limits.executor_reconnect_limit, lambda: self._cut(job))

    def _cut(self, job: Job) -> None:
        if job.channel is not None:
            self._desk.spawn(job.channel.close(1001, "the executor has ended"))

    async def _lost(self, job: Job, why: str) -> None:
        stage = job.row.state
        found = problem("executor_disconnected", f"The executor was lost: {why}", state=stage.value)
        await self._desk.fail(job, found)

    # its connection

    async def connected(self, job: Job, channel: Channel) -> None:
        """Hand over what there is of the job; an older connection with the same token gives way (G48)."""
        async with job.feed:
            older, job.channel = job.channel, channel
            job.extensions = announced(channel.peer_headers)
            job.logs.close("unavailable")
            job.disarm("reconnect")
            if older is not None:
                self._desk.spawn(older.close(1008, "replaced by a newer connection"))
            await channel.send(job.row.initial)
            if job.row.request is not None:
                await channel.send(job.row.request)
            if job.row.cancel_requested:
                await self._cancel_again(job, channel)

    async def _cancel_again(self, job: Job, channel: Channel) -> None:
        """The connection that was to bring it was lost, or the miner was restarted."""
        if Extension.CANCEL not in job.extensions:
            await self._desk.fail(job, cancelled(job.row.state))
            return
        self._arm_cancel(job)
        await channel.send(V0CancelJobRequest(job_uuid=job.uuid).to_frame())

    async def feed(self, job: Job, frame: str) -> None:
        """Pass the job request on; an executor that is not there gets it when it connects."""
        async with job.feed:
            job.row = job.row._replace(request=frame)
            await self._send(job, frame)

    async def _send(self, job: Job, frame: str) -> None:
        if job.channel is not None:
            try:
                await job.channel.send(frame)
            except ChannelClosed as closed:
                log.info("executor away, a message does not reach it", job_uuid=job.uuid, code=closed.code)

    async def cancel(self, job: Job) -> None:
        """The validator wants the job to end. Again, or after the end, it changes nothing."""
        if job.ended or job.row.cancel_requested:
            return
        job.row = job.row._replace(cancel_requested=True)
        try:
            await self._desk.store.request_cancel(job.uuid)
        except SQLAlchemyError as error:  # only a restart would miss it; the validator then asks again
            log.error("cancel not stored", job_uuid=job.uuid, error=type(error).__name__)
        if Extension.CANCEL in job.extensions:
            self._arm_cancel(job)
            self._desk.spawn(self._pass_cancel_on(job))
        else:
            await self._desk.fail(job, cancelled(job.row.state))

    def _arm_cancel(self, job: Job) -> None:
        """Once: an executor that comes back gains no time."""
        if not job.armed("cancel"):
            job.arm("cancel", self._limits.cancel_limit, lambda: self._desk.spawn(self._too_late(job)))

    async def _too_late(self, job: Job) -> None:
        await self._desk.fail(job, cancelled(job.row.state, "Its executor did not stop in time."))

    async def _pass_cancel_on(self, job: Job) -> None:
        async with job.feed:
            await self._send(job, V0CancelJobRequest(job_uuid=job.uuid).to_frame())

    # what it prints

    def ask(self, job: Job, request: V0JobLogsRequest, asker: Asker) -> None:
        """Pass a request for output on, or answer it where there is nobody to answer."""
        if job.ended:
            asker.offer(empty_answer(request, "ended"))
        elif Extension.LOGS not in job.extensions:
            asker.offer(empty_answer(request, "unavailable"))
        elif job.logs.ask(request, asker):
            self._desk.spawn(self._pass_logs_on(job))

    async def _pass_logs_on(self, job: Job) -> None:
        async with job.feed:
            while request := job.logs.next():
                try:
                    async with asyncio.timeout(LOGS_SEND_SECONDS):
                        await self._send(job, request.to_frame())
                except TimeoutError:
                    job.logs.close("unavailable")

    # its end

    async def disconnected(self, job: Job, channel: Channel, code: int) -> None:
        """Give a lost executor time to come back, unless it has ended (G47)."""
        if job.channel is not channel:
            return
        job.channel, job.extensions = None, frozenset()
        job.logs.close("ended" if job.ended else "unavailable")
        if job.ended:
            self._desk.drop_if_done(job)
            return
        why = f"its connection closed with code {code}"
        if job.executor_ended:
            await self._lost(job, why)
        else:
            self._await_return(job, why)

    def _await_return(self, job: Job, why: str) -> None:
        limit = self._limits.executor_reconnect_limit
        job.arm("reconnect", limit, lambda: self._desk.spawn(self._lost(job, why)))

    # its deadlines

    def arm(self, job: Job, readiness_s: float) -> None:
        """Deadlines of a job that is under way: to be ready, and to be over."""
        left = job.row.deadline_at - self._desk.clock()
        self._desk.deadline(job, "overall", left, "result_late", "The job overran its limits altogether")
        if job.row.state is JobState.ACCEPTED:
            text = "No executor was ready in time"
            self._desk.deadline(job, "stage", min(readiness_s, left), "executor_late", text)

    def ready(self, job: Job) -> None:
        """The executor is ready: now the validator's job request is due."""
        job.disarm("stage")
        if not job.requested:
            text = "The validator sent no job request"
            self._desk.deadline(job, "stage", self._limits.job_request_limit, "validator_silent", text)

    def restored(self, job: Job) -> None:
        """After a restart: the executor may still be there and dial again; else the job is lost (G47)."""
        self._await_return(job, "the miner was restarted, and it did not come back")

"""Executors at work: connected, lost, back again; what they are told, and deadlines (sections 7.1 to 7.3)."""

import asyncio
from functools import partial

import structlog

from compute_horde.lifecycle.states import JobState
from compute_horde.miner.cancelling import cancelled
from compute_horde.miner.desk import Desk
from compute_horde.miner.job import Job
from compute_horde.miner.logs import Asker
from compute_horde.miner.supervisor import Supervisor
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest, empty_answer
from compute_horde.protocol.extensions import Extension, announced
from compute_horde.telemetry.vocabulary import Peer
from compute_horde.transport.channel import Channel, ChannelClosed

log = structlog.get_logger(__name__)

LOGS_SEND_SECONDS = 5.0
"""How long an executor may refuse a request for output: whatever else is for it waits meanwhile."""


class Executors:
    """Speaks with each job's executor, and ends jobs whose time is up."""

    def __init__(self, desk: Desk, supervisor: Supervisor) -> None:
        self._desk, self.supervisor = desk, supervisor
        self._limits = desk.settings

    # its connection

    async def connected(self, job: Job, channel: Channel) -> None:
        """Hand over what there is of the job; an older connection with the same token gives way (G48)."""
        async with job.feed:
            if job.ended:  # while this waited its turn
                await self._desk.acknowledge(channel)
                return
            if job.met:
                self._desk.metrics.reconnected(Peer.EXECUTOR)
            older = job.channel
            job.connect(channel, announced(channel.peer_headers))
            job.logs.close("unavailable")
            job.timers.disarm("reconnect")
            if older is not None:
                self._desk.spawn(older.close(1008, "replaced by a newer connection"))
            await self._hand_out(job)  # first: one that finds no trace of the job has to know that it was begun
            await channel.send(job.row.initial)
            if job.row.cancel_requested:
                await self._cancel_again(job, channel)

    async def _cancel_again(self, job: Job, channel: Channel) -> None:
        """The connection that was to bring it was lost, or the miner was restarted."""
        if Extension.CANCEL not in job.extensions:
            self._desk.spawn(self._desk.fail(job, cancelled(job.row.state)))
            return
        self._arm_cancel(job)
        await channel.send(V0CancelJobRequest(job_uuid=job.uuid).to_frame())

    async def feed(self, job: Job) -> None:
        """Pass the job request on; an executor that is not there gets it when it connects."""
        async with job.feed:
            await self._hand_out(job)

    async def _hand_out(self, job: Job) -> None:
        """Only to one that is ready, or was: to any other it would mean that what it did is lost.

        A job that a power failure could still make the miner forget is not begun: it would be accepted again.
        """
        if job.row.request is not None and job.row.state is not JobState.ACCEPTED:
            if job.on_the_disk is not None:
                await asyncio.shield(job.on_the_disk)
            await self._send(job, job.row.request)

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
        await self._desk.keep(partial(self._desk.store.request_cancel, job.uuid), "a cancel")
        if Extension.CANCEL in job.extensions:
            self._arm_cancel(job)
            self._desk.spawn(self._pass_cancel_on(job))
        else:
            self._desk.spawn(self._desk.fail(job, cancelled(job.row.state)))

    def _arm_cancel(self, job: Job) -> None:
        """Once: an executor that comes back gains no time."""
        if not job.timers.armed("cancel"):
            job.timers.arm("cancel", self._limits.cancel_limit, lambda: self._desk.spawn(self._too_late(job)))

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
        """One that lives dials again, one that died is replaced; with neither to come, the job is lost (G47)."""
        if job.channel is not channel:
            return
        job.hang_up()
        job.logs.close("ended" if job.ended else "unavailable")
        if job.ended:
            self._desk.drop_if_done(job)
        elif job.deserted:
            self._desk.spawn(self.supervisor.gone(job, f"its connection closed with code {code}"))
        else:
            log.info("executor away", job_uuid=job.uuid, code=code)

    # its deadlines

    def arm(self, job: Job, readiness_s: float, left_s: float) -> None:
        """Deadlines of a job that is under way: to be ready, and to be over."""
        self._desk.deadline(job, "overall", left_s, "result_late", "The job overran its limits altogether")
        if job.row.state is JobState.ACCEPTED:
            text = "No executor was ready in time"
            self._desk.deadline(job, "stage", min(readiness_s, left_s), "executor_late", text)

    def ready(self, job: Job) -> None:
        """The executor is ready: now the validator's job request is due, or passed on."""
        job.timers.disarm("stage")
        if job.requested:
            self._desk.spawn(self.feed(job))
        else:
            text = "The validator sent no job request"
            self._desk.deadline(job, "stage", self._limits.job_request_limit, "validator_silent", text)

    def restored(self, job: Job, startup_s: float) -> None:
        """After a restart: the same deadlines, as far as a wall clock tells. Whoever finished meanwhile can say so
        even if they are over.
        """
        row, grace = job.row, self._limits.executor_reconnect_limit
        left = min(row.deadline_at - self._desk.clock(), row.deadline_at - row.created_at)
        self.arm(job, startup_s, max(left, grace))
        if row.state is not JobState.ACCEPTED:
            self.ready(job)
        if row.cancel_requested:
            self._arm_cancel(job)

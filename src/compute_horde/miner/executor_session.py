"""One executor's connection: its token, its stage messages (section 7.1)."""

import structlog

from compute_horde.lifecycle.failures import problem
from compute_horde.lifecycle.states import JobState
from compute_horde.miner.desk import GOING_AWAY, Desk
from compute_horde.miner.executors import Executors
from compute_horde.miner.job import Job
from compute_horde.miner.retries import Stopping
from compute_horde.protocol.base import MalformedFrame, parse_frame
from compute_horde.protocol.compat.executors import executor_failed, streaming_not_ready
from compute_horde.protocol.control import MAX_LOGS_FRAME_BYTES, V0JobLogsResponse
from compute_horde.protocol.enums import Participant
from compute_horde.protocol.miner_executor import EXECUTOR_TO_MINER, ExecutorToMiner
from compute_horde.protocol.signing import Signer, hex_signature
from compute_horde.protocol.validator_miner import (
    GenericError,
    V0ExecutionDoneRequest,
    V0ExecutorFailedRequest,
    V0ExecutorReadyRequest,
    V0HordeFailedRequest,
    V0JobFailedRequest,
    V0JobFinishedRequest,
    V0MachineSpecsRequest,
    V0StreamingJobNotReadyRequest,
    V0StreamingJobReadyRequest,
    V0VolumesReadyRequest,
)
from compute_horde.telemetry.logs import bind_job, bind_peer
from compute_horde.telemetry.vocabulary import Refusal
from compute_horde.transport.channel import Channel, ChannelClosed

log = structlog.get_logger(__name__)

TOKEN_SHOWN = 8


class ExecutorDoor:
    """Where executors come in. One instance; :meth:`serve` runs once for each connection."""

    def __init__(self, desk: Desk, executors: Executors, signer: Signer | None) -> None:
        self._desk, self._executors, self._signer = desk, executors, signer

    async def serve(self, channel: Channel, token: str) -> None:
        """Speak with an executor until either side closes."""
        with self._desk.session(channel), bind_peer(channel.peer):
            await self._serve(channel, token)

    async def _serve(self, channel: Channel, token: str) -> None:
        if self._desk.stopped:
            await channel.close(GOING_AWAY, "the miner is stopping")
            return
        job = self._desk.tokens.get(token)
        if job is None or job.ended:
            await self._turn_away(channel, token, job)
            return
        with bind_job(job.uuid):
            await self._speak(job, channel)

    async def _speak(self, job: Job, channel: Channel) -> None:
        code = 1006
        try:
            await self._executors.connected(job, channel)
            while True:
                await self._hear(job, channel, await channel.receive())
        except ChannelClosed as closed:
            code = closed.code
        except Stopping:
            await channel.close(GOING_AWAY, "the miner is stopping")
        finally:
            await self._executors.disconnected(job, channel, code)

    async def _turn_away(self, channel: Channel, token: str, job: Job | None) -> None:
        """Its result is forgotten with this, so that the job's end has to be on the disk before."""
        shown = f"{token[:TOKEN_SHOWN]}…"
        why = (
            f"Job with token {shown} is not waiting for an executor"
            if job
            else f"No job waiting for token {shown}"
        )
        self._desk.metrics.refused(Refusal.UNKNOWN_JOB)
        log.warning("executor turned away", peer=channel.peer, why=why)
        try:
            await self._desk.settled()
            await channel.send(GenericError(details=why).to_frame())
        except ChannelClosed:
            return
        except Stopping:
            await channel.close(GOING_AWAY, "the miner is stopping")
            return
        await channel.close(1000, "unknown token")

    async def _hear(self, job: Job, channel: Channel, frame: str) -> None:
        try:
            message = parse_frame(EXECUTOR_TO_MINER, frame)
        except MalformedFrame as error:
            self._desk.metrics.refused(Refusal.MALFORMED)
            await channel.send(GenericError(details=f"Malformed message: {error}").to_frame())
            return
        if not isinstance(message, GenericError) and message.job_uuid != job.uuid:
            self._desk.metrics.refused(Refusal.NOT_OURS)
            log.warning("executor speaks of another job", job_uuid=job.uuid, other=message.job_uuid[:64])
            await channel.send(GenericError(details=f"This connection is about job {job.uuid}").to_frame())
            return
        if isinstance(message, V0JobLogsResponse) and len(frame.encode()) > MAX_LOGS_FRAME_BYTES:
            self._desk.metrics.refused(Refusal.TOO_LARGE)
            log.warning("an answer about output is too large", job_uuid=job.uuid)
            return
        await self._handle(job, channel, message)

    async def _handle(self, job: Job, channel: Channel, message: ExecutorToMiner) -> None:
        match message:
            case V0ExecutorReadyRequest():
                await self._ready(job)
            case V0VolumesReadyRequest():
                await self._desk.record(job, message, JobState.VOLUMES_READY)
            case V0StreamingJobReadyRequest():
                await self._desk.record(job, self._streaming(message, channel), JobState.STREAMING_READY)
            case V0ExecutionDoneRequest():
                await self._with_request(job, message, JobState.EXECUTION_DONE)
            case V0MachineSpecsRequest():
                await self._desk.record(job, message)
            case V0JobFinishedRequest():
                await self._with_request(job, message, JobState.COMPLETED)
            case V0JobFailedRequest():
                await self._desk.finish(job, message, JobState.FAILED)
            case V0HordeFailedRequest():
                await self._desk.finish(job, message, JobState.HORDE_FAILED)
            case V0ExecutorFailedRequest():
                await self._desk.finish(job, executor_failed(message), JobState.HORDE_FAILED)
            case V0StreamingJobNotReadyRequest():
                await self._desk.finish(job, streaming_not_ready(message), JobState.FAILED)
            case V0JobLogsResponse():
                job.logs.answer(message)
            case GenericError():
                await self._error(job, message)

    async def _ready(self, job: Job) -> None:
        """Passed on without the token, which is the executor's secret."""
        if await self._desk.record(job, V0ExecutorReadyRequest(job_uuid=job.uuid), JobState.EXECUTOR_READY):
            self._executors.ready(job)

    async def _with_request(
        self, job: Job, message: V0ExecutionDoneRequest | V0JobFinishedRequest, to: JobState
    ) -> None:
        """Nothing can have been executed before the job request came."""
        if not job.requested:
            self._desk.metrics.refused(Refusal.ILLEGAL_TRANSITION)
            log.warning("executor ran ahead of its job", job_uuid=job.uuid, type=message.message_type)
        elif isinstance(message, V0JobFinishedRequest):
            await self._desk.finish(job, message, to)
        else:
            await self._desk.record(job, message, to)

    def _streaming(self, message: V0StreamingJobReadyRequest, channel: Channel) -> V0StreamingJobReadyRequest:
        """Fill in where the executor is, and the miner's signature over it (section 6.4)."""
        ip = message.ip or channel.peer.rpartition(":")[0]
        text = f"{message.job_uuid}:{ip}:{message.port}:{message.public_key}"
        signature = hex_signature(self._signer, text.encode()) if self._signer else None
        return message.model_copy(update={"ip": ip, "miner_signature": signature, "executor_token": None})

    async def _error(self, job: Job, message: GenericError) -> None:
        """An executor that cannot go on says so; the job ends with it (G46)."""
        if job.ended:
            return
        text = (message.details or "no details")[:1000]
        await self._desk.fail(
            job, problem("protocol_error", f"The executor reports: {text}"), Participant.EXECUTOR
        )

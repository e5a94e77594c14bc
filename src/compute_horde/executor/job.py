"""One job from its initial request to its last message: the stages of section 8.1."""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import structlog

from compute_horde.executor.artifacts import collect
from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.evidence import Hashing
from compute_horde.executor.execution import Execution
from compute_horde.executor.folders import JobFolders
from compute_horde.executor.follow import Follower
from compute_horde.executor.limits import StageLimits
from compute_horde.executor.link import LinkLost, MinerLink
from compute_horde.executor.network import WebClient
from compute_horde.executor.results import finished, last_message
from compute_horde.executor.runtime import ContainerRuntime, Image
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.uploads import Uploader
from compute_horde.executor.volumes import VolumeLoader
from compute_horde.lifecycle.deadlines import RunningDeadline
from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.protocol.base import Message
from compute_horde.protocol.enums import Participant, Stage
from compute_horde.protocol.validator_miner import (
    V0ExecutionDoneRequest,
    V0ExecutorReadyRequest,
    V0InitialJobRequest,
    V0JobRequest,
    V0VolumesReadyRequest,
)
from compute_horde.protocol.volumes import Volume

log = structlog.get_logger(__name__)

REPORT_SECONDS = 2.0
"""What hashing leaves of the time for the last message: a late one would lose the job and blame the miner."""


class JobRun:
    """The stages. Whoever runs it removes the container and the folders afterwards.

    A job that is cancelled before its last message is made ends as cancelled, also in the middle of its uploads:
    what was uploaded until then stays where it is.
    """

    def __init__(
        self,
        settings: ExecutorSettings,
        runtime: ContainerRuntime,
        link: MinerLink,
        folders: JobFolders,
        web: WebClient,
    ) -> None:
        self._settings, self._runtime, self._link, self._folders, self._web = settings, runtime, link, folders, web
        self._stage, self._job_uuid = Stage.EXECUTOR_STARTUP, ""
        self._deadline = RunningDeadline(0, 0)
        self._images: dict[str, Image] = {}
        self.execution = Execution(settings, runtime, folders)
        self._follower = Follower(self.execution.printed, link.answer)
        link.follow(self._follower)

    async def run(self, startup_deadline: float, preparing: "asyncio.Task[None]") -> Message:
        """The message that ends the job. ``startup_deadline``: on the loop's clock. ``preparing`` makes the
        folders and looks at the engine meanwhile.

        :raises LinkLost: there is nobody to tell.
        """
        try:
            async with asyncio.timeout_at(startup_deadline):
                initial = await self._link.initial()
        except TimeoutError:
            raise LinkLost("the miner sent no job in time") from None
        self._job_uuid = initial.job_uuid
        try:
            return await self._unless_cancelled(self._judged(preparing, initial, startup_deadline))
        finally:
            self._follower.end()

    async def _unless_cancelled(self, work: Coroutine[Any, Any, Message]) -> Message:
        """The message of ``work``, which is broken off when the job is cancelled before it has one."""
        stages = asyncio.ensure_future(work)
        cancelled = asyncio.ensure_future(self._link.cancelled())
        either: set[asyncio.Future[Any]] = {stages, cancelled}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if stages.done():
                return stages.result()
        finally:
            stages.cancel()
            cancelled.cancel()
            await asyncio.wait(either)
            if not stages.cancelled():
                stages.exception()  # it ended in the very moment in which it was broken off
        log.info("the job is cancelled", job_uuid=self._job_uuid, stage=self._stage.value)
        await self.execution.cancel()
        return self._failed(failure("cancelled", "The job was cancelled.", stage=self._stage))

    async def _judged(
        self, preparing: "asyncio.Task[None]", initial: V0InitialJobRequest, startup_deadline: float
    ) -> Message:
        try:
            await preparing
            return await self._stages(initial, startup_deadline)
        except JobFailure as failed:
            log.info("the job failed", job_uuid=self._job_uuid, code=failed.problem.code)
            return self._failed(failed)
        except LinkLost:
            raise
        except Exception as error:
            kind = type(error).__name__
            # Where, but not the exception's text: it may quote a URL or a value of env.
            where = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            log.error("the executor failed the job", job_uuid=self._job_uuid, kind=kind, where=where)
            text = f"The executor failed unexpectedly ({kind})."
            return self._failed(JobFailure(problem("internal_error", text, self._stage, exception_type=kind)))

    async def _stages(self, initial: V0InitialJobRequest, startup_deadline: float) -> Message:
        limits = await self._start_up(initial, startup_deadline)
        now = asyncio.get_running_loop().time
        self._deadline = RunningDeadline(now(), limits.leeway)
        self._link.send(V0ExecutorReadyRequest(job_uuid=self._job_uuid))
        job = await self._download(initial, limits)
        self._link.send(V0VolumesReadyRequest(job_uuid=self._job_uuid))
        self._stage = Stage.EXECUTION
        self._deadline.extend(limits.execution)
        image = await self._image(job.docker_image)
        await self.execution.run(job, image, min(limits.container, self._deadline.remaining(now())))
        self._link.send(V0ExecutionDoneRequest(job_uuid=self._job_uuid))
        return await self._upload(job, limits)

    async def _start_up(self, initial: V0InitialJobRequest, startup_deadline: float) -> StageLimits:
        if initial.streaming_details is not None:
            raise failure("streaming_unsupported", "This executor runs no streaming jobs yet.")
        limits = StageLimits.of(initial)
        if initial.docker_image:
            try:
                async with asyncio.timeout_at(startup_deadline):
                    await self._image(initial.docker_image)
            except TimeoutError:
                raise failure("image_pull_timeout", "The image was not pulled in time.") from None
        return limits

    async def _download(self, initial: V0InitialJobRequest, limits: StageLimits) -> V0JobRequest:
        self._stage = Stage.VOLUME_DOWNLOAD
        self._deadline.extend(limits.download)
        async with self._within(failure("miner_silent", "The full job request did not come.", stage=self._stage)):
            job = await self._link.job()
        self._check(initial, job)
        async with self._within(failure("download_timeout", "The inputs were not downloaded in time.")):
            await self._image(job.docker_image)
            if (volume := initial.volume or job.volume) is not None:
                await self._load(volume)
        return job

    def _check(self, initial: V0InitialJobRequest, job: V0JobRequest) -> None:
        if job.job_uuid != initial.job_uuid:
            raise failure("protocol_error", "The job request is about another job.", stage=self._stage)
        if initial.volume is not None and job.volume is not None:
            raise failure("protocol_error", "The volume was given twice.", stage=self._stage)

    async def _load(self, volume: Volume) -> None:
        async with self._web() as client:
            await VolumeLoader(self._settings, client, self._folders.volume, self._folders.transfer).load(volume)
        await asyncio.to_thread(self._folders.open_up)

    async def _upload(self, job: V0JobRequest, limits: StageLimits) -> Message:
        self._stage = Stage.RESULT_UPLOAD
        self._deadline.extend(limits.upload)
        try:
            self._folders.show_logs()
        except OSError as error:
            raise failure("output_invalid", f"The job made /output unusable: {error.strerror}.") from None
        hashing = Hashing(self._folders.output)
        try:
            artifacts, results, notices = await self._deliver(job)
            now = asyncio.get_running_loop().time()
            left = self._deadline.remaining(now)
            hashes = await hashing.result(max(left / 2, left - REPORT_SECONDS))
        finally:
            await hashing.close()
        notices += hashes.notices
        return finished(self._job_uuid, self.execution, artifacts, results, notices, hashes.by_path)

    async def _deliver(self, job: V0JobRequest) -> tuple[dict[str, str], dict[str, str] | None, list[str]]:
        """Artifacts, what the uploads were answered with, and notices."""
        folders, results = self._folders, None
        artifacts, notices = dict[str, str](), list[str]()
        async with self._within(failure("upload_timeout", "The outputs were not uploaded in time.")):
            if job.artifacts_dir:
                artifacts, notices = await asyncio.to_thread(collect, folders.artifacts, job.artifacts_dir)
            if job.output_upload is not None:
                uploader = Uploader(self._settings, self._web, folders.output, folders.transfer)
                try:
                    results = await uploader.upload(job.output_upload)
                except JobFailure as failed:
                    raise self.execution.blame_limit(failed) from None
                notices += uploader.notices
        return artifacts, results, notices

    async def _image(self, ref: str) -> Image:
        if ref not in self._images:
            self._images[ref] = await self._runtime.ensure_image(ref)
        return self._images[ref]

    @contextlib.asynccontextmanager
    async def _within(self, late: JobFailure) -> AsyncIterator[None]:
        """A part of a stage, ended by the running deadline with the failure ``late``."""
        try:
            async with asyncio.timeout_at(self._deadline.at):
                yield
        except TimeoutError:
            raise late from None

    def _failed(self, failed: JobFailure) -> Message:
        execution = self.execution
        message = to_wire(
            failed.problem,
            self._job_uuid,
            reported_by=Participant.EXECUTOR,
            stdout=execution.stdout,
            stderr=execution.stderr,
            exit_status=failed.exit_status,
        )
        return last_message(message)

"""One job from its initial request to its last message: the stages of section 8.1."""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import structlog

from compute_horde.executor.artifacts import collect
from compute_horde.executor.counting import Counting
from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.evidence import Hashing
from compute_horde.executor.execution import Execution
from compute_horde.executor.folders import JobFolders
from compute_horde.executor.follow import Follower
from compute_horde.executor.journal import Journal
from compute_horde.executor.limits import StageLimits, first_state
from compute_horde.executor.link import LinkLost, MinerLink
from compute_horde.executor.network import WebClient
from compute_horde.executor.results import finished, last_message
from compute_horde.executor.runtime import ContainerRuntime, Image
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.state import ENTERED
from compute_horde.executor.timing import Clocks
from compute_horde.executor.uploads import Uploader
from compute_horde.executor.volumes import VolumeLoader
from compute_horde.lifecycle.deadlines import RunningDeadline
from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.protocol.base import Message
from compute_horde.protocol.enums import Participant, Stage
from compute_horde.protocol.validator_miner import (
    V0InitialJobRequest,
    V0JobRequest,
)
from compute_horde.protocol.volumes import Volume
from compute_horde.telemetry.logs import bind_job

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
        journal: Journal,
        clocks: Clocks,
        counting: Counting,
    ) -> None:
        self._settings, self._runtime, self._link, self._folders, self._web = settings, runtime, link, folders, web
        self._journal, self._clocks, self._counting = journal, clocks, counting
        self._stage = journal.adopted.stage if journal.adopted else Stage.EXECUTOR_STARTUP
        self._job_uuid = ""
        self._deadline = RunningDeadline(journal.adopted.until if journal.adopted else 0, 0)
        self._images: dict[str, Image] = {}
        self.execution = Execution(settings, runtime, folders, journal, clocks, counting)
        self._follower = Follower(self.execution.printed, link.answer)

    async def run(self, startup_deadline: float, preparing: "asyncio.Task[None]") -> Message:
        """The message that ends the job. ``startup_deadline``: on the clock ``elapsed``, for a job that nobody has
        begun. ``preparing`` makes the folders and looks at the engine meanwhile.

        :raises LinkLost: there is nobody to tell.
        """
        self._link.follow(self._follower)
        try:
            async with self._clocks.timeout_at(startup_deadline):
                initial = await self._link.initial()
        except TimeoutError:
            raise LinkLost("the miner sent no job in time") from None
        self._job_uuid = initial.job_uuid
        self._counting.of_class(initial.executor_class)
        with bind_job(initial.job_uuid):
            last = await self._to_its_end(initial, startup_deadline, preparing)
        self._counting.ended(last)
        return last

    async def _to_its_end(
        self, initial: V0InitialJobRequest, startup_deadline: float, preparing: "asyncio.Task[None]"
    ) -> Message:
        self._link.persist(self._opened(initial, startup_deadline))
        try:
            return await self._unless_cancelled(self._judged(preparing, initial))
        finally:
            self._follower.end()

    def _opened(self, initial: V0InitialJobRequest, startup_deadline: float) -> float:
        """Begin the journal, if nobody has; until when the job is kept (``elapsed``)."""
        now = self._journal.now
        if self._journal.adopted is None:
            begun = first_state(initial, self._folders.token, now, startup_deadline)
            self._journal.begin(begun)
            return now.elapsed + begun.keep_until - now.wall
        return now.elapsed + self._journal.adopted.keep_until - now.wall

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

    async def _judged(self, preparing: "asyncio.Task[None]", initial: V0InitialJobRequest) -> Message:
        try:
            await preparing
            return await self._stages(initial)
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

    async def _stages(self, initial: V0InitialJobRequest) -> Message:
        limits = StageLimits.of(initial)
        if not self._is_behind(Stage.EXECUTOR_STARTUP):
            await self._start_up(initial)
            self._deadline = RunningDeadline(self._clocks.elapsed(), limits.leeway)
        self._enter(Stage.VOLUME_DOWNLOAD, limits.download)
        job = await self._download(initial)
        self._enter(Stage.EXECUTION, limits.execution)
        await self._execute(job, limits)
        self._enter(Stage.RESULT_UPLOAD, limits.upload)
        return await self._upload(job)

    async def _execute(self, job: V0JobRequest, limits: StageLimits) -> None:
        """The container is started, taken over, or only read again, as far as the job has come."""
        adopted = self._journal.adopted
        if adopted is None or adopted.begun is None:
            image = await self._image(job.docker_image)
            left = self._deadline.remaining(self._clocks.elapsed())
            await self.execution.run(job, image, min(limits.container, left))
        elif self._is_behind(Stage.EXECUTION):
            await self.execution.recall(adopted.begun, timed_out=adopted.timed_out)
        else:
            await self.execution.resume(adopted.begun)

    def _is_behind(self, stage: Stage) -> bool:
        """Whether an earlier executor has come past ``stage``."""
        adopted = self._journal.adopted
        return adopted is not None and adopted.stage is not stage and adopted.has_reached(stage)

    def _enter(self, stage: Stage, limit_s: float) -> None:
        """A stage begins, or goes on. The miner is told again: nobody knows whether it heard."""
        self._stage = stage
        adopted = self._journal.adopted
        anew = adopted is None or not adopted.has_reached(stage)
        self._counting.entered(stage, anew=anew)
        if anew:
            until = self._deadline.extend(limit_s)
            self._journal.note(stage=stage, until=until, timed_out=self.execution.timed_out)
        self._link.send(ENTERED[stage](job_uuid=self._job_uuid))

    async def _start_up(self, initial: V0InitialJobRequest) -> None:
        """:raises JobFailure:"""
        if initial.streaming_details is not None:
            raise failure("streaming_unsupported", "This executor runs no streaming jobs yet.")
        state = self._journal.state
        if initial.docker_image and state is not None:
            try:
                async with self._clocks.timeout_at(state.startup_until):
                    await self._image(initial.docker_image)
            except TimeoutError:
                raise failure("image_pull_timeout", "The image was not pulled in time.") from None
        if self._journal.adopted is None and self._link.has_job:
            text = "The job was begun before, and its progress is not on this machine any more."
            raise failure("executor_disconnected", text)
        await self._journal.saved()

    async def _download(self, initial: V0InitialJobRequest) -> V0JobRequest:
        """The job request, its inputs in place. What an interrupted download has left is emptied first."""
        async with self._within(failure("miner_silent", "The full job request did not come.", stage=self._stage)):
            job = await self._link.job()
        if self._is_behind(Stage.VOLUME_DOWNLOAD):
            return job
        self._check(initial, job)
        if self._journal.adopted is not None:
            await asyncio.to_thread(self._folders.empty_inputs)
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
            loader = VolumeLoader(
                self._settings, client, self._folders.volume, self._folders.transfer, self._counting
            )
            await loader.load(volume)
        await asyncio.to_thread(self._folders.open_up)

    async def _upload(self, job: V0JobRequest) -> Message:
        try:
            self._folders.show_logs()
        except OSError as error:
            raise failure("output_invalid", f"The job made /output unusable: {error.strerror}.") from None
        hashing = Hashing(self._folders.output)
        try:
            artifacts, results, notices = await self._deliver(job)
            left = self._deadline.remaining(self._clocks.elapsed())
            hashes = await hashing.result(max(left / 2, left - REPORT_SECONDS))
        finally:
            await hashing.close()
        notices = self.execution.notices + notices + hashes.notices
        return finished(self._job_uuid, self.execution, artifacts, results, notices, hashes.by_path)

    async def _deliver(self, job: V0JobRequest) -> tuple[dict[str, str], dict[str, str] | None, list[str]]:
        """Artifacts, what the uploads were answered with, and notices."""
        folders, results = self._folders, None
        artifacts, notices = dict[str, str](), list[str]()
        async with self._within(failure("upload_timeout", "The outputs were not uploaded in time.")):
            if job.artifacts_dir:
                artifacts, notices = await asyncio.to_thread(collect, folders.artifacts, job.artifacts_dir)
            if job.output_upload is not None:
                uploader = Uploader(
                    self._settings, self._web, folders.output, folders.transfer, counting=self._counting
                )
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
            async with self._clocks.timeout_at(self._deadline.at):
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

"""The execution stage: one container, watched until it ends or is ended."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from compute_horde.executor.counting import Counting
from compute_horde.executor.disk import look, watch
from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.folders import JobFolders
from compute_horde.executor.journal import Journal
from compute_horde.executor.logs import JobLog
from compute_horde.executor.patience import engine_willing, settled
from compute_horde.executor.printed import Printed
from compute_horde.executor.runtime import (
    ContainerRuntime,
    ContainerSpec,
    Ended,
    Image,
    Mount,
    RunningContainer,
)
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.state import Begun
from compute_horde.executor.timing import Clocks
from compute_horde.protocol.enums import DockerPreset
from compute_horde.protocol.paths import artifacts_dir_problem
from compute_horde.protocol.validator_miner import V0JobRequest
from compute_horde.telemetry.vocabulary import Adoption

log = structlog.get_logger(__name__)

STOP_GRACE_SECONDS = 1
CANCEL_GRACE_SECONDS = 2
START_SECONDS = 60
_GONE_SECONDS = 60
_CANCEL_SECONDS = 10
_MAY_BE_CUT = (
    "The executor was restarted while the job ran. The container engine keeps a limited log, so that some of what "
    "the job printed may be missing."
)


class Execution:
    """What ran, what it printed, and how it ended. ``journal`` says whether an earlier executor has begun it."""

    def __init__(
        self,
        settings: ExecutorSettings,
        runtime: ContainerRuntime,
        folders: JobFolders,
        journal: Journal,
        clocks: Clocks,
        counting: Counting,
    ) -> None:
        self._settings, self._runtime, self._folders = settings, runtime, folders
        self._journal, self._clocks, self._counting = journal, clocks, counting
        self._log: JobLog | None = None
        self._opening: asyncio.Future[RunningContainer | None] | None = None
        self.printed = Printed()
        self.image: Image | None = None
        self.container: RunningContainer | None = None
        self.exit_status: int | None = None
        self.timed_out, self._limit = False, 0.0

    @property
    def stdout(self) -> str | None:
        return self._log.stdout if self._log else None

    @property
    def stderr(self) -> str | None:
        if self._log is None or not self.timed_out:
            return self._log.stderr if self._log else None
        text = self._log.stderr
        line_end = "\n" if text and not text.endswith("\n") else ""
        return f"{text}{line_end}The execution time limit of {round(self._limit, 1):g} s stopped the job.\n"

    @property
    def notices(self) -> list[str]:
        """What the client should know of the output."""
        cut = self.container is not None and self.container.may_be_cut
        return [_MAY_BE_CUT] if cut else []

    async def run(self, job: V0JobRequest, image: Image, limit_s: float) -> None:
        """Return when the container has ended well, or was stopped by its time limit.

        :raises JobFailure: ``nonzero_exit``, ``out_of_memory``, ``disk_full``, ``container_start_failed``, ...
        """
        self.image, self._limit = image, limit_s
        spec = self._spec(job, image)
        container = await self._opened(
            self._runtime.start(spec, self._open_log().feed, lambda: self._note_begun(image)),
            self._clocks.elapsed() + START_SECONDS,
        )
        await self._watch(container, limit_s)

    async def resume(self, begun: Begun) -> None:
        """Like :meth:`run`, of a container that an earlier executor has begun.

        :raises JobFailure: besides, ``executor_disconnected``: it is not there any more.
        """
        container = await self._take_over(begun)
        await self._watch(container, await self._left(container, begun))

    async def _watch(self, container: RunningContainer, limit_s: float | None) -> None:
        ended = await self._guard(container, limit_s)
        self._take(ended)
        if not self.timed_out:
            self._judge(ended)

    async def recall(self, begun: Begun, *, timed_out: bool) -> None:
        """Read again what a container has printed that ended in an earlier executor's time. :raises JobFailure:"""
        container = await self._take_over(begun)
        self.timed_out = timed_out
        try:
            async with asyncio.timeout(_GONE_SECONDS):
                self._take(await container.wait())
        except TimeoutError:
            raise failure("engine_unavailable", "The container's end could not be read again.") from None

    async def _note_begun(self, image: Image) -> None:
        self._journal.note(begun=Begun(at=self._clocks.elapsed(), limit_s=self._limit, image=image))
        try:
            await self._journal.durable()
        except OSError:
            raise failure("internal_error", "The executor cannot write to its disk.") from None

    def _open_log(self) -> JobLog:
        self._close_log()  # one whose container was not found in time
        self._log = JobLog(self._folders.logs, self._settings.log_bytes, self.printed)
        return self._log

    async def _take_over(self, begun: Begun) -> RunningContainer:
        """The container that was begun, its output read from the beginning. An engine that is away is waited for
        as long as the stage lasts. :raises JobFailure:
        """
        self.image, self._limit = begun.image, begun.limit_s
        if self._journal.rebooted:
            self._counting.adopted(Adoption.LOST)
            raise failure("executor_disconnected", "The executor's machine was started anew while the job ran.")
        name = ContainerSpec.name_of(self._folders.token)
        sink, until = self._open_log().feed, self._journal.stage_until
        opening = engine_willing(lambda: self._runtime.resume(name, sink), until, self._clocks)
        found = await self._opened(opening, max(until, self._clocks.elapsed() + START_SECONDS))
        self._counting.adopted(Adoption.TAKEN_OVER)
        log.info("took over a job's container")  # its name holds the token
        return found

    async def _opened(
        self, opening: Coroutine[Any, Any, RunningContainer | None], until: float
    ) -> RunningContainer:
        """Cancelled, it leaves ``opening`` to whoever ends this. :raises JobFailure:"""
        self._opening = asyncio.ensure_future(opening)
        try:
            async with self._clocks.timeout_at(until):
                self.container = await asyncio.shield(self._opening)
        except TimeoutError:
            await self._stop_opening()
            raise failure("engine_unavailable", "The container did not start in time.") from None
        if self.container is None:
            self._counting.adopted(Adoption.LOST)
            raise failure("executor_disconnected", "The job's container is gone: the executor was restarted.")
        return self.container

    async def _stop_opening(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await self._opening_settled(self._opening)

    async def _opening_settled(self, opening: "asyncio.Future[RunningContainer | None]") -> None:
        await settled(opening)
        if not opening.cancelled() and opening.exception() is None:
            self.container = opening.result()

    async def _left(self, container: RunningContainer, begun: Begun) -> float | None:
        """Seconds that a container that was taken over may still run; None: it has ended in its time."""
        age = await container.age()
        since = self._clocks.elapsed() - begun.at
        ran = age.seconds if 0 <= age.seconds <= since else since  # the engine's clock may have been set
        if age.running:
            return max(0.0, begun.limit_s - ran)
        self.timed_out = ran >= begun.limit_s
        if not self.timed_out:
            await look(container, self._watched, self._settings.disk_bytes)
        return None

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()

    def _take(self, ended: Ended) -> None:
        self._close_log()
        self.exit_status = ended.exit_status

    def blame_limit(self, failed: JobFailure) -> JobFailure:
        """A missing output of a job that was stopped is the doing of its time limit (G55)."""
        if self.timed_out and failed.problem.code == "output_missing":
            text = f"The execution time limit of {round(self._limit, 1):g} s came before the job wrote its output."
            return failure("execution_timeout", text, exit_status=self.exit_status)
        return failed

    async def cancel(self) -> None:
        """Stop the container where one runs, and take in what it prints until it is gone."""
        await self._stop_opening()
        if self.exit_status is None:
            try:
                async with asyncio.timeout(_CANCEL_SECONDS):
                    if self.container is None and self._journal.begun is not None:
                        await self._take_over(self._journal.begun)
                    if self.container is not None:
                        await self.container.stop(CANCEL_GRACE_SECONDS)
                        await self.container.wait()
            except (TimeoutError, JobFailure) as error:
                log.warning("a cancelled container was not seen to end", why=str(error))
        self._close_log()

    async def close(self) -> None:
        """Remove the container, whatever it is doing, also one that was begun before and not taken over."""
        await self._stop_opening()
        self._close_log()
        if self.container is not None:
            await self.container.remove()
        elif self._journal.adopted is not None:
            await self._runtime.remove(ContainerSpec.name_of(self._folders.token))

    async def release(self) -> None:
        """Let go of the container, which goes on; one that is being started is first."""
        if self._opening is not None:
            await self._opening_settled(self._opening)
        if self.container is not None:
            await self.container.release()
        self._close_log()

    @property
    def _watched(self) -> tuple[Path, ...]:
        folders = self._folders
        return (folders.volume, folders.output, folders.specs, folders.artifacts)

    async def _guard(self, container: RunningContainer, limit_s: float | None) -> Ended:
        """The end of the container, brought about after ``limit_s``; None: it has ended."""
        chosen = self._settings
        until = self._clocks.elapsed() + (_GONE_SECONDS if limit_s is None else limit_s)
        ending = asyncio.create_task(container.wait())
        watching = asyncio.create_task(
            watch(container, self._watched, chosen.disk_bytes, chosen.disk_reserve_bytes)
        )
        limit = asyncio.create_task(self._clocks.sleep_until(until))
        tasks: set[asyncio.Task[Any]] = {ending, watching, limit}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                return ending.result()
            self.timed_out = not watching.done()
            await container.stop(STOP_GRACE_SECONDS if self.timed_out else 0)
            async with asyncio.timeout(_GONE_SECONDS):
                ended = await ending
            if not self.timed_out:
                watching.result()
            return ended
        except TimeoutError:
            raise failure("engine_unavailable", "The container could not be stopped.") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _judge(self, ended: Ended) -> None:
        if ended.out_of_memory:
            limit = self._settings.memory_bytes
            text = f"The job was killed: it used more than its {limit} bytes of memory."
            raise failure("out_of_memory", text, exit_status=ended.exit_status, limit=limit)
        if ended.killed:
            text = "The job's container was stopped from outside, as by a restart of the container engine."
            raise failure("executor_disconnected", text, exit_status=ended.exit_status)
        if ended.exit_status != 0:
            text = f"The job ended with exit code {ended.exit_status}."
            raise failure("nonzero_exit", text, exit_status=ended.exit_status)

    def _spec(self, job: V0JobRequest, image: Image) -> ContainerSpec:
        folders = self._folders
        mounts = [
            Mount(folders.volume, "/volume"),
            Mount(folders.output, "/output"),
            Mount(folders.specs, "/specs"),
        ]
        if job.artifacts_dir:
            if why := artifacts_dir_problem(job.artifacts_dir):
                raise failure("container_start_failed", f"The artifacts folder {why}.")
            mounts.append(Mount(folders.artifacts, "/" + job.artifacts_dir.strip("/")))
        command = tuple(job.docker_run_cmd)
        if job.raw_script and not command:
            command = ("python", "/script.py")
            mounts.append(Mount(self._script(job.raw_script), "/script.py"))
        return ContainerSpec(
            token=folders.token,
            image=image,
            command=command,
            env=job.env,
            mounts=tuple(mounts),
            gpu=job.docker_run_options_preset is DockerPreset.NVIDIA_ALL,
        )

    def _script(self, text: str) -> Path:
        path = self._folders.transfer / "script.py"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        path.chmod(0o644)
        return path

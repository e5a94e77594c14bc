"""The execution stage: one container, watched until it ends or is ended."""

import asyncio
from pathlib import Path

import structlog

from compute_horde.executor.disk import watch
from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.folders import JobFolders
from compute_horde.executor.logs import JobLog
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
from compute_horde.protocol.enums import DockerPreset
from compute_horde.protocol.paths import artifacts_dir_problem
from compute_horde.protocol.validator_miner import V0JobRequest

log = structlog.get_logger(__name__)

STOP_GRACE_SECONDS = 1
CANCEL_GRACE_SECONDS = 2
START_SECONDS = 60
_GONE_SECONDS = 60
_CANCEL_SECONDS = 10


class Execution:
    """What ran, what it printed, and how it ended."""

    def __init__(self, settings: ExecutorSettings, runtime: ContainerRuntime, folders: JobFolders) -> None:
        self._settings, self._runtime, self._folders = settings, runtime, folders
        self._log: JobLog | None = None
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

    async def run(self, job: V0JobRequest, image: Image, limit_s: float) -> None:
        """Return when the container has ended well, or was stopped by its time limit.

        :raises JobFailure: ``nonzero_exit``, ``out_of_memory``, ``disk_full``, ``container_start_failed``, ...
        """
        spec = self._spec(job, image)
        self._log = JobLog(self._folders.logs, self._settings.log_bytes, self.printed)
        self.image, self._limit = image, limit_s
        try:
            async with asyncio.timeout(START_SECONDS):
                self.container = await self._runtime.start(spec, self._log.feed)
        except TimeoutError:
            raise failure("engine_unavailable", "The container did not start in time.") from None
        ended = await self._guard(self.container, limit_s)
        self._log.close()
        self.exit_status = ended.exit_status
        if not self.timed_out:
            self._judge(ended)

    def blame_limit(self, failed: JobFailure) -> JobFailure:
        """A missing output of a job that was stopped is the doing of its time limit (G55)."""
        if self.timed_out and failed.problem.code == "output_missing":
            text = f"The execution time limit of {round(self._limit, 1):g} s came before the job wrote its output."
            return failure("execution_timeout", text, exit_status=self.exit_status)
        return failed

    async def cancel(self) -> None:
        """Stop the container where one runs, and take in what it prints until it is gone."""
        if self.container is not None and self.exit_status is None:
            try:
                async with asyncio.timeout(_CANCEL_SECONDS):
                    await self.container.stop(CANCEL_GRACE_SECONDS)
                    await self.container.wait()
            except (TimeoutError, JobFailure) as error:
                log.warning("a cancelled container was not seen to end", why=str(error))
        if self._log is not None:
            self._log.close()

    async def close(self) -> None:
        """Remove the container, whatever it is doing."""
        if self._log is not None:
            self._log.close()
        if self.container is not None:
            await self.container.remove()

    async def _guard(self, container: RunningContainer, limit_s: float) -> Ended:
        chosen, folders = self._settings, self._folders
        watched = (folders.volume, folders.output, folders.specs, folders.artifacts)
        ending = asyncio.create_task(container.wait())
        watching = asyncio.create_task(watch(container, watched, chosen.disk_bytes, chosen.disk_reserve_bytes))
        try:
            done, _ = await asyncio.wait({ending, watching}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if ending in done:
                return ending.result()
            self.timed_out = watching not in done
            await container.stop(STOP_GRACE_SECONDS if self.timed_out else 0)
            async with asyncio.timeout(_GONE_SECONDS):
                ended = await ending
            if not self.timed_out:
                watching.result()
            return ended
        except TimeoutError:
            raise failure("engine_unavailable", "The container could not be stopped.") from None
        finally:
            for task in (ending, watching):
                task.cancel()
            await asyncio.wait({ending, watching})

    def _judge(self, ended: Ended) -> None:
        if ended.out_of_memory:
            limit = self._settings.memory_bytes
            text = f"The job was killed: it used more than its {limit} bytes of memory."
            raise failure("out_of_memory", text, exit_status=ended.exit_status, limit=limit)
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

"""Executors as processes of this machine, started before there is a job for them (section 7.2)."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import structlog

from compute_horde.miner.launcher import LaunchedExecutor, LaunchFailed
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.transport.backoff import backoff

log = structlog.get_logger(__name__)

COMMAND: Final = (sys.executable, "-m", "compute_horde.cli", "executor", "--warm")
TERM_SECONDS = 5.0
LAUNCH_ATTEMPTS = 3


class ExecutorProcess:
    """A :class:`~compute_horde.miner.launcher.LaunchedExecutor`. One line on its stdin is its job."""

    def __init__(self, process: asyncio.subprocess.Process, term_s: float) -> None:
        self._process, self._term_s = process, term_s

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def begin(self, token: str, miner_url: str) -> None:
        """Hand it its job. :raises OSError: it has ended."""
        stdin = self._process.stdin
        if stdin is None or not self.alive:
            raise BrokenPipeError("the executor has ended")
        stdin.write(json.dumps({"miner_url": miner_url, "token": token}).encode() + b"\n")
        await stdin.drain()
        stdin.close()

    async def wait(self) -> int | None:
        return await self._process.wait()

    async def kill(self) -> None:
        """SIGTERM, then SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(self._term_s):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


class _Warm(NamedTuple):
    executor: ExecutorProcess
    taken: asyncio.Event


class ProcessLauncher:
    """An :class:`~compute_horde.miner.launcher.ExecutorLauncher` of warm worker processes.

    A worker knows no class until its job, so the warm ones of all classes are one store. One that is taken is
    replaced; one that dies while it waits is replaced after a pause that grows.
    """

    def __init__(self, command: Sequence[str] = COMMAND, *, term_s: float = TERM_SECONDS) -> None:
        self._command, self._term_s = tuple(command), term_s
        self._wanted: dict[ExecutorClass, int] = {}
        self._warm: list[_Warm] = []
        self._working: dict[ExecutorProcess, asyncio.Task[None]] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def warm_count(self) -> int:
        """Workers that wait for a job right now."""
        return len(self._warm)

    async def warm(self, executor_class: ExecutorClass, count: int) -> None:
        self._wanted[executor_class] = count
        wanted = sum(self._wanted.values())
        while len(self._keepers) < wanted:
            self._keepers.append(asyncio.create_task(self._keep_one_warm()))
        while len(self._keepers) > wanted:
            self._keepers.pop().cancel()

    async def launch(self, token: str, executor_class: ExecutorClass, miner_url: str) -> LaunchedExecutor:
        for _ in range(LAUNCH_ATTEMPTS):
            executor = self._take() or await self._spawn()
            self._working[executor] = asyncio.create_task(self._until_ended(executor))
            try:
                await executor.begin(token, miner_url)
            except OSError:
                log.warning("an executor ended before it had its job")
            else:
                return executor
        raise LaunchFailed("executors end as soon as they start")

    async def close(self) -> None:
        self._closed = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(executor.kill() for executor in list(self._working)))
        await asyncio.gather(*self._working.values())

    def _take(self) -> ExecutorProcess | None:
        while self._warm:
            warm = self._warm.pop(0)
            if warm.executor.alive:
                warm.taken.set()
                return warm.executor
        return None

    async def _spawn(self) -> ExecutorProcess:
        if self._closed:
            raise LaunchFailed("the miner is stopping")
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the miner's terminal is the miner's to pass on
            )
        except OSError as error:
            raise LaunchFailed(f"cannot start {self._command[0]}: {error.strerror}") from None
        return ExecutorProcess(process, self._term_s)

    async def _keep_one_warm(self) -> None:
        pauses = backoff()
        while True:
            try:
                taken = await self._hold_one()
            except LaunchFailed as failed:
                log.error("no warm executor", error=str(failed))
                taken = False
            if taken:
                pauses = backoff()
            else:
                await asyncio.sleep(next(pauses))

    async def _hold_one(self) -> bool:
        """Start one and keep it until it is taken (True) or dies (False)."""
        warm = _Warm(await self._spawn(), asyncio.Event())
        self._warm.append(warm)
        died, taken = asyncio.ensure_future(warm.executor.wait()), asyncio.ensure_future(warm.taken.wait())
        try:
            either: set[asyncio.Future[Any]] = {died, taken}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not warm.taken.is_set():
                await warm.executor.kill()
            raise
        finally:
            died.cancel()
            taken.cancel()
            if warm in self._warm:
                self._warm.remove(warm)
        return warm.taken.is_set()

    async def _until_ended(self, executor: ExecutorProcess) -> None:
        await executor.wait()
        del self._working[executor]

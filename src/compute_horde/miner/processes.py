"""Executors as processes of this machine, started before there is a job for them (section 7.2)."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import structlog

from compute_horde.miner.child import Child
from compute_horde.miner.launcher import LaunchedExecutor, LaunchFailed
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.transport.backoff import backoff

log = structlog.get_logger(__name__)

COMMAND: Final = (sys.executable, "-m", "compute_horde.cli", "executor", "--warm")
TERM_SECONDS = 5.0
LAUNCH_ATTEMPTS = 3


class ExecutorProcess:
    """A :class:`~compute_horde.miner.launcher.LaunchedExecutor`. One line on its stdin is its job."""

    def __init__(self, child: Child, term_s: float) -> None:
        self.child, self._term_s = child, term_s

    @property
    def alive(self) -> bool:
        return self.child.alive

    def begin(self, token: str, miner_url: str) -> None:
        """Hand it its job. :raises OSError: it has ended."""
        self.child.say(json.dumps({"miner_url": miner_url, "token": token}).encode())

    async def wait(self) -> int | None:
        return await self.child.wait()

    async def kill(self) -> None:
        """SIGTERM, then SIGKILL."""
        await self.child.kill(self._term_s)


class _Warm(NamedTuple):
    executor: ExecutorProcess
    taken: asyncio.Event


class ProcessLauncher:
    """An :class:`~compute_horde.miner.launcher.ExecutorLauncher` of warm worker processes.

    A worker knows no class until its job, so the warm ones of all classes are one store. One that is taken is
    replaced; one that dies while it waits is replaced after a pause that grows. One that waits ends with its
    miner, since its stdin does; one at work outlives it.
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
            executor = self._take() or self._spawn()
            self._working[executor] = asyncio.create_task(self._until_ended(executor))
            try:
                executor.begin(token, miner_url)
            except OSError:
                log.warning("an executor ended before it had its job")
            else:
                return executor
        raise LaunchFailed("executors end as soon as they start")

    async def close(self, *, kill: bool = False) -> None:
        """End the warm ones. Those at work live on, and their next miner hears of them, unless they are killed."""
        self._closed = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        if kill:
            await asyncio.gather(*(executor.kill() for executor in list(self._working)))
        for executor, watching in list(self._working.items()):
            executor.child.let_go()
            watching.cancel()
        await asyncio.gather(*self._working.values(), return_exceptions=True)
        self._working.clear()

    def _take(self) -> ExecutorProcess | None:
        while self._warm:
            warm = self._warm.pop(0)
            if warm.executor.alive:
                warm.taken.set()
                return warm.executor
        return None

    def _spawn(self) -> ExecutorProcess:
        if self._closed:
            raise LaunchFailed("the miner is stopping")
        try:
            return ExecutorProcess(Child(self._command), self._term_s)
        except OSError as error:
            raise LaunchFailed(f"cannot start {self._command[0]}: {error.strerror}") from None

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
        warm = _Warm(self._spawn(), asyncio.Event())
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
        self._working.pop(executor, None)

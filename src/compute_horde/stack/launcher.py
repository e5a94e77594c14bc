"""Executors inside this process: the miner's launcher for a whole horde in one process."""

import asyncio

import structlog

from compute_horde.executor.runtime import ContainerRuntime
from compute_horde.executor.service import Executor
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.miner.launcher import LaunchedExecutor, LaunchFailed
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.transport.websocket import WebSocketDialer

log = structlog.get_logger(__name__)


class _Running:
    """One executor at work in this process."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task

    async def wait(self) -> int | None:
        await asyncio.wait({self._task})
        return 1 if self._task.cancelled() or self._task.exception() else 0

    async def kill(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


class InProcessLauncher:
    """An :class:`~compute_horde.miner.launcher.ExecutorLauncher` whose executors are tasks of this loop.

    They share one connection to the container engine, so they are always warm. Those that are let go of end, and
    leave their containers and folders to the executors that are launched with the same tokens at the next start.
    """

    def __init__(self, settings: ExecutorSettings, runtime: ContainerRuntime) -> None:
        self._runtime = runtime
        self._executor = Executor(settings, runtime, WebSocketDialer())
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    async def warm(self, executor_class: ExecutorClass, count: int) -> None:
        await self._executor.warm()

    async def launch(self, token: str, executor_class: ExecutorClass, miner_url: str) -> LaunchedExecutor:
        if self._closed:
            raise LaunchFailed("the miner is stopping")
        task = asyncio.create_task(self._executor.run(miner_url, token))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return _Running(task)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("executor crashed", error=repr(error))

    async def close(self, *, kill: bool = False) -> None:
        """Let go of the jobs under way, or end them, and close the connection to the engine."""
        self._closed = True
        if not kill:
            await self._executor.release()
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
        await self._executor.close()
        await self._runtime.close()

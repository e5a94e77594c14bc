"""The machine that executors run on: an engine that outlives them, and the launcher that starts them."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.unit.model.processes import Process
from tests.unit.model.virtual import VirtualLoop
from tests.unit.model.wires import Network

from compute_horde.executor.fake import DIGEST, FACTS, FakeContainer, FakeProcess, FakeRuntime
from compute_horde.executor.runtime import Age, ContainerSpec, Ended, EngineFacts, Image, Note, Sink, nothing
from compute_horde.executor.service import Executor
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.timing import Clocks
from compute_horde.protocol.enums import ExecutorClass

IMAGE = "image"


async def _work(process: FakeProcess) -> int:
    seconds, status = float(process.spec.command[1]), int(process.spec.command[2])
    process.print("begun\n")
    await asyncio.sleep(seconds)
    process.print("ended\n")
    return status


class Engine:
    """The containers of one machine. ``starts``, ``ends``: how often each began and came to its end, by token."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.process = Process("engine", loop)
        self.starts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.runtime = FakeRuntime(
            images={IMAGE: Image(DIGEST, False)}, programs={"work": self._counted}, clock=loop.elapsed
        )

    async def _counted(self, process: FakeProcess) -> int:
        self.starts[process.spec.token] += 1
        status = await _work(process)
        self.ends[process.spec.token] += 1
        return status


class Socket:
    """A :class:`~compute_horde.executor.runtime.ContainerRuntime`: the engine as one process sees it.

    What a process has asked for happens, also when it is killed while it waits for the answer.
    """

    def __init__(self, engine: Engine, process: Process) -> None:
        self._engine, self._process = engine, process

    async def ask(self, work: Callable[[], Awaitable[Any]]) -> Any:
        await self._process.edge()
        task = self._engine.process.spawn(_awaited(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._process.alive and not task.done():
                task.cancel()
                await asyncio.wait({task})
            raise

    async def check(self) -> EngineFacts:
        facts: EngineFacts = await self.ask(self._engine.runtime.check)
        return facts

    async def ensure_image(self, ref: str) -> Image:
        image: Image = await self.ask(lambda: self._engine.runtime.ensure_image(ref))
        return image

    async def start(self, spec: ContainerSpec, sink: Sink, begun: Note = nothing) -> "Container":
        async def noted() -> None:
            await self._process.edge()
            await self._process.spawn(_awaited(begun))
            await self._process.edge()

        found = await self.ask(lambda: self._engine.runtime.start(spec, self._sink(sink), noted))
        return Container(self, found)

    async def resume(self, name: str, sink: Sink) -> "Container | None":
        found = await self.ask(lambda: self._engine.runtime.resume(name, self._sink(sink)))
        return None if found is None else Container(self, found)

    async def remove(self, name: str) -> None:
        await self.ask(lambda: self._engine.runtime.remove(name))

    async def remove_leftovers(self, alive: Callable[[], frozenset[str]]) -> int:
        count: int = await self.ask(lambda: self._engine.runtime.remove_leftovers(alive))
        return count

    async def close(self) -> None:
        """There is nothing to close."""

    def _sink(self, sink: Sink) -> Sink:
        def guarded(stream: int, data: bytes) -> None:
            if self._process.alive:
                sink(stream, data)

        return guarded


async def _awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


class Container:
    """A :class:`~compute_horde.executor.runtime.RunningContainer`."""

    def __init__(self, socket: Socket, real: FakeContainer) -> None:
        self._socket, self._real = socket, real

    @property
    def may_be_cut(self) -> bool:
        return self._real.may_be_cut

    async def age(self) -> Age:
        age: Age = await self._socket.ask(self._real.age)
        return age

    async def release(self) -> None:
        await self._socket.ask(self._real.release)

    async def wait(self) -> Ended:
        ended: Ended = await self._socket.ask(self._real.wait)
        return ended

    async def stop(self, grace_s: float) -> None:
        await self._socket.ask(lambda: self._real.stop(grace_s))

    async def written_bytes(self) -> int:
        size: int = await self._socket.ask(self._real.written_bytes)
        return size

    async def remove(self) -> None:
        await self._socket.ask(self._real.remove)


class Launched:
    """A :class:`~compute_horde.miner.launcher.LaunchedExecutor`: a process, as its miner sees it."""

    def __init__(self, process: Process, main: "asyncio.Task[None]") -> None:
        self._process, self._main = process, main

    async def wait(self) -> int | None:
        return await asyncio.shield(self._process.ended)

    async def kill(self) -> None:
        if self._process.alive:
            self._main.cancel()
        await asyncio.shield(self._process.ended)


class Machine:
    """An :class:`~compute_horde.miner.launcher.ExecutorLauncher` whose executors are processes of their own."""

    def __init__(self, loop: VirtualLoop, network: Network, folder: Path) -> None:
        self.engine = Engine(loop)
        self._loop, self._network = loop, network
        self._settings = ExecutorSettings(work_dir=folder, executor_id=str(folder), disk_reserve_bytes=0)
        self._executors: list[Process] = []

    @property
    def executors(self) -> list[Process]:
        """Those that live, oldest first."""
        self._executors = [process for process in self._executors if process.alive]
        return self._executors

    def unfit(self, unfit: bool) -> None:
        """Whether its engine can confine no job for the moment: attempts fail by the miner's fault."""
        self.engine.runtime.facts = replace(FACTS, memory_limit=not unfit)

    async def wipe(self, process: Process) -> None:
        """What a dead executor has left on this machine is gone, its container included."""
        shutil.rmtree(self._settings.folder / process.name, ignore_errors=True)
        await self.engine.process.spawn(self.engine.runtime.remove(ContainerSpec.name_of(process.name)))

    async def warm(self, executor_class: ExecutorClass, count: int) -> None:
        """A launch takes no time."""

    async def launch(self, token: str, executor_class: ExecutorClass, miner_url: str) -> Launched:
        process = Process(token, self._loop)
        self._executors.append(process)
        main = process.spawn(self._run(process, miner_url, token))
        main.add_done_callback(lambda _: self._ended(process, main), context=self.engine.process.context)
        return Launched(process, main)

    async def close(self, *, kill: bool = False) -> None:
        """They live on."""

    async def _run(self, process: Process, miner_url: str, token: str) -> None:
        clocks = Clocks(elapsed=self._loop.elapsed, wall=self._loop.wall, boot=lambda: "boot")
        dialer = self._network.dialer(process, "executor-miner")
        executor = Executor(self._settings, Socket(self.engine, process), dialer, web=_no_web, clocks=clocks)
        await executor.run(miner_url, token)

    def _ended(self, process: Process, main: "asyncio.Task[None]") -> None:
        if not main.cancelled() and (error := main.exception()) is not None:
            raise AssertionError(f"an executor crashed: {error!r}") from error
        if process.alive:
            process.alive = False
            self._network.hang_up(process)
            process.ended.set_result(0)


def _no_web() -> Any:
    raise AssertionError("the jobs of this model have neither inputs nor outputs")

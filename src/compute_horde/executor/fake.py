"""The container runtime without an engine: programs are functions. For tests and scenarios."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compute_horde.executor.errors import failure
from compute_horde.executor.runtime import (
    STDOUT,
    Age,
    ContainerSpec,
    Ended,
    EngineFacts,
    Image,
    Note,
    Sink,
    nothing,
)
from compute_horde.lifecycle.clock import elapsed

DIGEST = f"sha256:{'1' * 64}"
FACTS = EngineFacts(version="fake", memory_limit=True, pids_limit=True, runtimes=frozenset({"runc"}), cpus=2)


class OutOfMemory(Exception):  # noqa: N818 - raised by a program to say what happens to it
    """The program used more memory than it may."""


@dataclass
class FakeProcess:
    """What a program sees: its specification, where its mounts really are, and a way to print."""

    spec: ContainerSpec
    sink: Sink
    written: int = 0

    def print(self, text: str, stream: int = STDOUT) -> None:
        self.sink(stream, text.encode())

    def folder(self, target: str) -> Path:
        """The folder of this machine that is mounted at ``target``."""
        return next(mount.source for mount in self.spec.mounts if mount.target == target)


Program = Callable[[FakeProcess], Awaitable[int]]
"""Runs to its exit status; stopping the container cancels it."""


async def _true(_: FakeProcess) -> int:
    return 0


async def _false(_: FakeProcess) -> int:
    return 1


async def _sleep(_: FakeProcess) -> int:
    await asyncio.Event().wait()
    return 0


async def _echo(process: FakeProcess) -> int:
    process.print(" ".join(process.spec.command[1:]) + "\n")
    return 0


PROGRAMS: Mapping[str, Program] = {"true": _true, "false": _false, "sleep": _sleep, "echo": _echo}


class FakeContainer:
    """A :class:`~.runtime.RunningContainer`, and what the engine keeps of it when its executor dies."""

    def __init__(self, spec: ContainerSpec, program: Program, engine: "FakeRuntime", sink: Sink) -> None:
        self._process, self._program, self._engine = FakeProcess(spec, self._print), program, engine
        self._sink, self._printed = sink, list[tuple[int, bytes]]()
        self._task: asyncio.Task[int] | None = None
        self._killed_as, self._killed = 143, False
        self._started_at = self._ended_at = 0.0
        self.may_be_cut = False
        self.starts = 0

    @property
    def was_started(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        self.starts += 1
        self._started_at = self._engine.clock()
        self._task = asyncio.ensure_future(_run(self._program, self._process))
        self._task.add_done_callback(self._note_end)

    def read_again(self, sink: Sink) -> None:
        """Give ``sink`` all that was printed, and what will be; the former gets nothing more."""
        self._sink = sink
        for stream, data in self._printed:
            sink(stream, data)

    async def wait(self) -> Ended:
        task = self._running()
        await asyncio.wait({task})
        if task.cancelled():
            return Ended(self._killed_as, False, self._killed)
        if isinstance(task.exception(), OutOfMemory):
            return Ended(137, True)
        return Ended(task.result(), False)

    async def stop(self, grace_s: float) -> None:
        if self._task is not None and not self._task.done():
            self._killed_as = 143 if grace_s else 137
            self._task.cancel()
            await asyncio.wait({self._task})

    async def kill_from_outside(self) -> None:
        """What an operator does, or an engine that stops."""
        self._killed = self._task is not None and not self._task.done()
        await self.stop(0)

    async def written_bytes(self) -> int:
        return self._process.written

    async def age(self) -> Age:
        running = not self._running().done()
        return Age((self._engine.clock() if running else self._ended_at) - self._started_at, running)

    async def release(self) -> None:
        self._sink = _ignore

    async def remove(self) -> None:
        await self.stop(0)
        self._engine.containers.pop(self._process.spec.name, None)

    def _print(self, stream: int, data: bytes) -> None:
        self._printed.append((stream, data))
        self._sink(stream, data)

    def _running(self) -> "asyncio.Task[int]":
        if self._task is None:
            raise failure("engine_unavailable", "The container was not started.")
        return self._task

    def _note_end(self, _: "asyncio.Task[int]") -> None:
        self._ended_at = self._engine.clock()


def _ignore(stream: int, data: bytes) -> None:
    """A sink for what nobody reads."""


async def _run(program: Program, process: FakeProcess) -> int:
    return await program(process)


@dataclass
class FakeRuntime:
    """A :class:`~.runtime.ContainerRuntime`. ``programs``: by the command's first word, beside the usual ones.

    Containers outlive the executor that began them: hand the same engine to the next. ``clock``: in seconds.
    """

    images: Mapping[str, Image] = field(default_factory=lambda: {"image": Image(DIGEST, False)})
    programs: Mapping[str, Program] = field(default_factory=dict)
    facts: EngineFacts = FACTS
    pulled: list[str] = field(default_factory=list)
    specs: list[ContainerSpec] = field(default_factory=list)
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    clock: Callable[[], float] = elapsed

    async def check(self) -> EngineFacts:
        if not (self.facts.memory_limit and self.facts.pids_limit):
            raise failure("sandbox_unsafe", "The engine cannot limit memory and processes.")
        return self.facts

    async def ensure_image(self, ref: str) -> Image:
        await asyncio.sleep(0)
        self.pulled.append(ref)
        if ref not in self.images:
            raise failure("image_not_found", f"There is no image {ref!r}.")
        return self.images[ref]

    async def start(self, spec: ContainerSpec, sink: Sink, begun: Note = nothing) -> FakeContainer:
        await asyncio.sleep(0)
        if spec.gpu and not self.facts.gpu:
            raise failure("gpu_unavailable", "There is no GPU.")
        command = spec.command[0] if spec.command else "true"
        program = {**PROGRAMS, **self.programs}.get(command)
        if program is None:
            raise failure("container_start_failed", f"The image has no {command!r}.")
        if (there := self.containers.get(spec.name)) is not None and there.was_started:
            raise failure("executor_disconnected", "The job's container has run already.")
        self.specs.append(spec)
        container = self.containers[spec.name] = FakeContainer(spec, program, self, sink)
        try:
            await begun()
            await asyncio.sleep(0)
        except BaseException:
            del self.containers[spec.name]
            raise
        container.start()
        return container

    async def resume(self, name: str, sink: Sink) -> FakeContainer | None:
        await asyncio.sleep(0)
        if (found := self.containers.get(name)) is None:
            return None
        found.read_again(sink)
        if not found.was_started:
            found.start()
        return found

    async def remove(self, name: str) -> None:
        if (found := self.containers.get(name)) is not None:
            await found.remove()

    async def remove_leftovers(self, alive: Callable[[], frozenset[str]]) -> int:
        names = {f"ch-{token}-job" for token in alive()}
        dead = [container for name, container in self.containers.items() if name not in names]
        for container in dead:
            await container.remove()
        return len(dead)

    async def close(self) -> None:
        """There is nothing to give back."""

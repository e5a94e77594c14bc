"""The container runtime without an engine: programs are functions. For tests and scenarios."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compute_horde.executor.errors import failure
from compute_horde.executor.runtime import STDOUT, ContainerSpec, Ended, EngineFacts, Image, Sink

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
    """A :class:`~.runtime.RunningContainer`."""

    def __init__(self, process: FakeProcess, program: Program, gone: Callable[[], None]) -> None:
        self._process, self._gone = process, gone
        self._task: asyncio.Task[int] = asyncio.ensure_future(_run(program, process))
        self._killed_as = 143

    async def wait(self) -> Ended:
        await asyncio.wait({self._task})
        if self._task.cancelled():
            return Ended(self._killed_as, False)
        if isinstance(self._task.exception(), OutOfMemory):
            return Ended(137, True)
        return Ended(self._task.result(), False)

    async def stop(self, grace_s: float) -> None:
        if not self._task.done():
            self._killed_as = 143 if grace_s else 137
            self._task.cancel()
            await asyncio.wait({self._task})

    async def written_bytes(self) -> int:
        return self._process.written

    async def remove(self) -> None:
        await self.stop(0)
        self._gone()


async def _run(program: Program, process: FakeProcess) -> int:
    return await program(process)


@dataclass
class FakeRuntime:
    """A :class:`~.runtime.ContainerRuntime`. ``programs``: by the command's first word, beside the usual ones."""

    images: Mapping[str, Image] = field(default_factory=lambda: {"image": Image(DIGEST, False)})
    programs: Mapping[str, Program] = field(default_factory=dict)
    facts: EngineFacts = FACTS
    pulled: list[str] = field(default_factory=list)
    specs: list[ContainerSpec] = field(default_factory=list)
    containers: dict[str, FakeContainer] = field(default_factory=dict)

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

    async def start(self, spec: ContainerSpec, sink: Sink) -> FakeContainer:
        await asyncio.sleep(0)
        if spec.gpu and not self.facts.gpu:
            raise failure("gpu_unavailable", "There is no GPU.")
        command = spec.command[0] if spec.command else "true"
        program = {**PROGRAMS, **self.programs}.get(command)
        if program is None:
            raise failure("container_start_failed", f"The image has no {command!r}.")
        self.specs.append(spec)
        container = FakeContainer(FakeProcess(spec, sink), program, lambda: self._forget(spec.name))
        self.containers[spec.name] = container
        return container

    async def remove_leftovers(self, alive: Callable[[], frozenset[str]]) -> int:
        names = {f"ch-{token}-job" for token in alive()}
        dead = [container for name, container in self.containers.items() if name not in names]
        for container in dead:
            await container.remove()
        return len(dead)

    async def close(self) -> None:
        """There is nothing to give back."""

    def _forget(self, name: str) -> None:
        self.containers.pop(name, None)

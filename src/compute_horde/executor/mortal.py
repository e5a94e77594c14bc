"""An executor that dies at a chosen moment, for tests: what it did until then stays, and it does nothing more."""

import asyncio
import contextlib
import shutil
from pathlib import Path

from compute_horde.executor.fake import FakeContainer, FakeRuntime
from compute_horde.executor.runtime import Age, ContainerSpec, Ended, EngineFacts, Image, Note, Sink, nothing


class Death:
    """Comes when :meth:`point` is reached under the chosen name. ``folder``: the job's, as it will be found."""

    def __init__(self, at: str, engine: FakeRuntime, folder: Path) -> None:
        self._at, self.engine, self._folder = at, engine, folder
        self._copy = folder.parent.with_name(f"{folder.name}.copy")
        self.came, self._containers = asyncio.Event(), dict[str, FakeContainer]()

    def seen(self, name: str) -> None:
        """Somebody else than the executor saw it come so far."""
        if name == self._at:
            self.strike()

    async def point(self, name: str) -> None:
        """Pass, or die here."""
        self.seen(name)
        if self.came.is_set():
            await asyncio.Event().wait()

    def strike(self) -> None:
        """Die now."""
        if not self.came.is_set():
            self._containers = dict(self.engine.containers)
            shutil.copytree(self._folder, self._copy)
            self.came.set()

    async def take(self, running: "asyncio.Task[None]") -> None:
        """Wait for the death of the executor that is at work, and leave what a killed process leaves."""
        await self.came.wait()
        running.cancel()
        await asyncio.wait({running})
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)
        self._copy.rename(self._folder)
        self.engine.containers.update(self._containers)


class MortalContainer:
    """A :class:`~.runtime.RunningContainer` that the dead cannot touch."""

    def __init__(self, container: FakeContainer, death: Death) -> None:
        self._container, self._death = container, death

    @property
    def may_be_cut(self) -> bool:
        return self._container.may_be_cut

    async def wait(self) -> Ended:
        ended = await self._container.wait()
        await self._death.point("ended")
        return ended

    async def stop(self, grace_s: float) -> None:
        if not self._death.came.is_set():
            await self._container.stop(grace_s)
            await self._death.point("stopped")

    async def written_bytes(self) -> int:
        return await self._container.written_bytes()

    async def age(self) -> Age:
        return await self._container.age()

    async def release(self) -> None:
        await self._container.release()

    async def remove(self) -> None:
        if not self._death.came.is_set():
            await self._container.remove()
            self._death.seen("removed")


class MortalRuntime:
    """A :class:`~.runtime.ContainerRuntime` over an engine that lives on."""

    def __init__(self, death: Death) -> None:
        self._engine, self._death = death.engine, death

    async def check(self) -> EngineFacts:
        return await self._engine.check()

    async def ensure_image(self, ref: str) -> Image:
        await self._death.point("image")
        return await self._engine.ensure_image(ref)

    async def start(self, spec: ContainerSpec, sink: Sink, begun: Note = nothing) -> MortalContainer:
        async def noted() -> None:
            await self._death.point("created")
            await begun()
            await self._death.point("begun")

        container = await self._engine.start(spec, sink, noted)
        await self._death.point("started")
        return MortalContainer(container, self._death)

    async def resume(self, name: str, sink: Sink) -> MortalContainer | None:
        found = await self._engine.resume(name, sink)
        return None if found is None else MortalContainer(found, self._death)

    async def remove(self, name: str) -> None:
        if not self._death.came.is_set():
            await self._engine.remove(name)

    async def remove_leftovers(self, alive: object) -> int:
        return 0

    async def close(self) -> None:
        """There is nothing to give back."""

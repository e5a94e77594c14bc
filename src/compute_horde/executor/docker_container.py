"""One container of the Docker Engine, from its creation on."""

import asyncio
import contextlib
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from aiodocker import DockerError
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream

from compute_horde.executor.disk import tree_bytes
from compute_horde.executor.docker_events import was_killed
from compute_horde.executor.docker_log import Demultiplexer, chunks
from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.runtime import Age, Ended, Sink
from compute_horde.protocol.enums import Stage

log = structlog.get_logger(__name__)

_AS_IT_IS = 304  # the engine's answer to a start of what runs
_DRAIN_SECONDS = 30
"""How long the rest of the output may take to arrive after the container has ended."""


class DockerHandle:
    """A :class:`~.runtime.RunningContainer`."""

    def __init__(self, container: DockerContainer, kept_log_bytes: int = 0) -> None:
        self._container, self._kept = container, kept_log_bytes
        self._stream: Stream | None = None
        self._pump: asyncio.Task[None] | None = None
        self._sink: Sink = _ignore
        self._read: Demultiplexer | None = None
        self.may_be_cut, self._watched, self._stopped = False, False, False

    async def start(self, sink: Sink) -> None:
        """Attach, so that nothing printed is lost, and start."""
        self._watched = True
        self._stream = self._container.attach(stdout=True, stderr=True)
        await self._stream._init()
        self._pump = asyncio.create_task(_pump(self._stream, sink))
        try:
            await self._container.start()
        except DockerError as error:
            if error.status != _AS_IT_IS:
                raise

    def read_again(self, sink: Sink) -> None:
        """Give ``sink`` all that was printed, and what will be."""
        self._sink, self._read = sink, Demultiplexer(sink)
        self._pump = asyncio.create_task(self._read_log(self._read, follow=True))

    async def _catch_up(self) -> None:
        """An engine may end a followed log before the last words of the container; they are in the log itself."""
        read, self._read = self._read, None
        if read is not None and self._pump is not None and not self._pump.done():
            self.may_be_cut = True  # so much that it has not been read in time
        elif read is not None and not self.may_be_cut:
            await self._read_log(Demultiplexer(self._sink, read.taken), follow=False)

    async def _read_log(self, reader: Demultiplexer, *, follow: bool) -> None:
        try:
            async for data in chunks(self._container, follow=follow):
                reader.feed(data)
                self.may_be_cut = reader.log_bytes >= self._kept
        except (DockerError, aiohttp.ClientError, OSError) as error:
            log.warning("a container's log cannot be read", kind=type(error).__name__)
            self.may_be_cut = True

    async def state(self) -> dict[str, Any]:
        """What the engine says of it now. :raises DockerError, aiohttp.ClientError:"""
        return dict((await self._container.show())["State"])

    async def age(self) -> Age:
        try:
            state = await self.state()
            now = datetime.fromisoformat((await self._container.docker.system.info())["SystemTime"])
        except (DockerError, aiohttp.ClientError) as error:
            raise _engine_gone(error) from None
        running = bool(state["Running"])
        ended = now if running else datetime.fromisoformat(state["FinishedAt"])
        return Age((ended - datetime.fromisoformat(state["StartedAt"])).total_seconds(), running)

    async def release(self) -> None:
        await self._close_stream()

    async def wait(self) -> Ended:
        try:
            answer = await self._container.wait()
        except (DockerError, aiohttp.ClientError) as error:
            raise _engine_gone(error) from None
        if self._pump is not None:
            await asyncio.wait({self._pump}, timeout=_DRAIN_SECONDS)
        await self._catch_up()
        status = int(answer["StatusCode"])
        if status == 0 and self._watched:  # the usual end needs no further question
            return Ended(0, False)
        return await self._how_it_ended(status)

    async def _how_it_ended(self, status: int) -> Ended:
        try:
            state = await self.state()
            killed = not self._stopped and await was_killed(self._container, state)
        except (DockerError, aiohttp.ClientError) as error:
            raise _engine_gone(error) from None
        return Ended(status, status != 0 and bool(state.get("OOMKilled")), killed)

    async def stop(self, grace_s: float) -> None:
        self._stopped = True
        try:
            with contextlib.suppress(DockerError):
                await self._container.stop(t=round(grace_s))
        except aiohttp.ClientError as error:
            raise _engine_gone(error) from None

    async def written_bytes(self) -> int:
        facts = await self._facts()
        upper = (facts.get("GraphDriver") or {}).get("Data", {}).get("UpperDir")
        # a VOLUME of the image is a folder of its own, outside the container's layer
        volumes = [mount.get("Source", "") for mount in facts.get("Mounts") or () if mount.get("Type") == "volume"]
        used = await asyncio.to_thread(_readable_bytes, volumes)
        if upper and os.access(upper, os.R_OK):
            return used + await asyncio.to_thread(tree_bytes, Path(upper))
        with contextlib.suppress(DockerError):
            return used + int((await self._container.show(size=1)).get("SizeRw") or 0)
        return used

    async def _facts(self) -> dict[str, Any]:
        """What the engine says of the container, asked once."""
        if "Mounts" not in self._container._container:
            with contextlib.suppress(DockerError):
                await self._container.show()
        return self._container._container

    async def remove(self) -> None:
        try:
            await self._container.delete(force=True, v=True)
        except DockerError as error:
            if error.status not in (404, 409):
                raise _engine_gone(error) from None
        except aiohttp.ClientError as error:
            raise _engine_gone(error) from None
        finally:
            await self._close_stream()

    async def _close_stream(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})
        elif self._stream is not None:
            await _close(self._stream)


def _ignore(stream: int, data: bytes) -> None:
    """A sink before there is one."""


def _readable_bytes(folders: list[str]) -> int:
    return sum(tree_bytes(Path(folder)) for folder in folders if folder and os.access(folder, os.R_OK))


def _engine_gone(error: Exception) -> JobFailure:
    text = f"The executor's container engine failed ({type(error).__name__})."
    return failure("engine_unavailable", text, stage=Stage.EXECUTION)


async def _pump(stream: Stream, sink: Sink) -> None:
    try:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            while (message := await stream.read_out()) is not None:
                sink(message.stream, message.data)
    finally:
        await _close(stream)


async def _close(stream: Stream) -> None:
    with contextlib.suppress(AssertionError, OSError):  # it asserts that the engine has not closed it first
        await stream.close()

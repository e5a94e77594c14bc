"""The container runtime over the Docker Engine API (Docker, and Podman where it speaks the same)."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from compute_horde.executor.docker_container import DockerHandle
from compute_horde.executor.docker_events import NO_CONNECTION
from compute_horde.executor.docker_options import (
    LOG_FILES,
    OWNER_LABEL,
    READ_ONLY_LABEL,
    TOKEN_LABEL,
    container_config,
)
from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.patience import settled, unbroken
from compute_horde.executor.runtime import ContainerSpec, EngineFacts, Image, Note, Sink, nothing
from compute_horde.executor.settings import ExecutorSettings

_ON_ITS_WAY_SECONDS = 1.0
_NOT_FOUND = (
    "not found",
    "no such image",
    "manifest unknown",
    "name unknown",
    "repository does not exist",
    "access denied",
    "requested access to the resource is denied",
    "invalid reference format",
    "invalid repository name",
    "invalid tag format",
    "no matching manifest",
    "unauthorized",
)


class DockerRuntime:
    """A :class:`~.runtime.ContainerRuntime`. Executors of one process may share one."""

    def __init__(self, settings: ExecutorSettings) -> None:
        self._settings = settings
        self._client: Docker | None = None
        self._facts: EngineFacts | None = None

    async def check(self) -> EngineFacts:
        async with self._engine() as docker:
            info = await docker.system.info()
        facts = EngineFacts(
            version=str(info.get("ServerVersion", "unknown")),
            memory_limit=bool(info.get("MemoryLimit")),
            pids_limit=bool(info.get("PidsLimit")),
            runtimes=frozenset(info.get("Runtimes") or {}),
            cpus=int(info.get("NCPU") or 1),
            log_drivers=frozenset((info.get("Plugins") or {}).get("Log") or ()),
        )
        _require_safe(facts, self._settings)
        self._facts = facts
        return facts

    async def ensure_image(self, ref: str) -> Image:
        async with self._engine() as docker:
            found = None if self._settings.pull == "always" else await _inspect_image(docker, ref)
            if found is None:
                await self._pull(docker, ref)
                found = await _inspect_image(docker, ref)
        if found is None:
            raise failure("image_not_found", f"The engine has no image {ref!r} after pulling it.")
        labels = (found.get("Config") or {}).get("Labels") or {}
        return Image(found["Id"], labels.get(READ_ONLY_LABEL) == "true")

    async def start(self, spec: ContainerSpec, sink: Sink, begun: Note = nothing) -> DockerHandle:
        facts = self._facts or await self.check()
        if spec.gpu and (self._settings.no_gpu or not facts.gpu):
            raise failure("gpu_unavailable", "The job asks for GPUs; this executor has none to offer.")
        config = container_config(spec, self._settings, facts)
        async with self._engine() as docker:
            noted = asyncio.ensure_future(begun())
            try:
                handle = self._handle(await unbroken(self._create(docker, spec.name, config), _discard))
                await _start(handle, sink, noted)
            except DockerError as error:
                raise _start_failed(error) from None
            finally:
                noted.cancel()
                await unbroken(settled(noted))
        return handle

    async def resume(self, name: str, sink: Sink) -> DockerHandle | None:
        async with self._engine() as docker:
            try:
                handle = self._handle(await docker.containers.get(name))
                if await _was_never_started(handle):
                    await _start(handle, sink)
                elif (await handle.state())["Status"] in ("removing", "dead"):
                    return None
                else:
                    handle.read_again(sink)
            except DockerError as error:
                if error.status == 404:
                    return None
                raise _start_failed(error) from None
        return handle

    async def remove(self, name: str) -> None:
        async with self._engine() as docker:
            await self._handle(docker.containers.container(name)).remove()

    def _handle(self, container: DockerContainer) -> DockerHandle:
        return DockerHandle(container, (LOG_FILES - 1) * self._settings.log_bytes)

    async def remove_leftovers(self, alive: Callable[[], frozenset[str]]) -> int:
        filters = {"label": [f"{OWNER_LABEL}={self._settings.owner}"]}
        removed = 0
        async with self._engine() as docker:
            found = await docker.containers.list(all=True, filters=json.dumps(filters))
            tokens = alive()
            for container in found:
                labels = container._container.get("Labels") or {}
                if labels.get(TOKEN_LABEL) not in tokens:
                    await DockerHandle(container).remove()
                    removed += 1
        return removed

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _create(self, docker: Docker, name: str, config: dict[str, Any]) -> DockerContainer:
        try:
            return await docker.containers.create(config, name=name)
        except DockerError as error:
            if error.status != 409:
                raise
        there = await docker.containers.get(name)
        if there._container["State"]["Status"] != "created":
            raise failure("executor_disconnected", "The job's container has run, and its progress is lost.")
        await there.delete(v=True)  # refused if it runs after all
        return await docker.containers.create(config, name=name)

    async def _pull(self, docker: Docker, ref: str) -> None:
        try:
            async for line in docker.images.pull(ref, auth=self._auth(ref), stream=True):
                if "error" in line:
                    raise _pull_failed(ref, str(line["error"]))
        except DockerError as error:
            if error.status == NO_CONNECTION:
                raise
            raise _pull_failed(ref, error.message) from None
        except ValueError:
            raise failure("image_not_found", f"{ref!r} is not the name of an image.") from None

    def _auth(self, ref: str) -> dict[str, str] | None:
        chosen = self._settings
        if not chosen.registry or chosen.registry_password is None or not ref.startswith(f"{chosen.registry}/"):
            return None
        return {
            "username": chosen.registry_username or "",
            "password": chosen.registry_password.get_secret_value(),
        }

    @contextlib.asynccontextmanager
    async def _engine(self) -> AsyncIterator[Docker]:
        """The client; an engine that does not answer becomes a typed failure, other answers pass."""
        try:
            self._client = self._client or Docker(url=_address(self._settings))
            yield self._client
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unavailable(str(error)) from None
        except DockerError as error:
            if error.status in (404, 409, 400):
                raise
            raise _unavailable(error.message) from None


def _address(settings: ExecutorSettings) -> str:
    if url := settings.docker_url or os.environ.get("DOCKER_HOST"):
        return url
    own = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    usual = ("/var/run/docker.sock", f"{own}/docker.sock", "/run/podman/podman.sock", f"{own}/podman/podman.sock")
    found = next((path for path in usual if Path(path).is_socket()), usual[0])
    return f"unix://{found}"


async def _inspect_image(docker: Docker, ref: str) -> dict[str, Any] | None:
    try:
        return await docker.images.inspect(ref)
    except DockerError as error:
        if error.status == 404:
            return None
        if error.status == 400:
            raise failure("image_not_found", f"{ref!r} is not the name of an image.") from None
        raise


async def _was_never_started(handle: DockerHandle) -> bool:
    """Whether it is as it was created, also when the engine has had time to read a start that is on its way."""
    if (await handle.state())["Status"] != "created":
        return False
    await asyncio.sleep(_ON_ITS_WAY_SECONDS)
    return bool((await handle.state())["Status"] == "created")


async def _start(handle: DockerHandle, sink: Sink, noted: "asyncio.Future[None] | None" = None) -> None:
    """Start when that is noted; remove the container if it does not come to it."""
    try:
        if noted is not None:
            await noted
        await handle.start(sink)
    except BaseException:
        await unbroken(handle.remove())
        raise


async def _discard(container: DockerContainer) -> None:
    await DockerHandle(container).remove()


def _require_safe(facts: EngineFacts, settings: ExecutorSettings) -> None:
    missing = [
        what
        for what, there in (
            ("a memory limit", facts.memory_limit),
            ("a limit of processes", facts.pids_limit),
            ("the runtime runsc", settings.runsc != "require" or "runsc" in facts.runtimes),
        )
        if not there
    ]
    if missing:
        raise failure("sandbox_unsafe", f"The executor's engine lacks {' and '.join(missing)}.")


def _pull_failed(ref: str, message: str) -> JobFailure:
    code = "image_not_found" if any(text in message.lower() for text in _NOT_FOUND) else "image_pull_failed"
    return failure(code, f"Cannot pull the image {ref!r}: {message[:500]}")


def _start_failed(error: DockerError) -> JobFailure:
    if error.status == NO_CONNECTION:
        return _unavailable(error.message)
    return failure("container_start_failed", f"The container did not start: {error.message[:1000]}")


def _unavailable(why: str) -> JobFailure:
    return failure("engine_unavailable", f"The executor's container engine does not answer: {why[:500]}")

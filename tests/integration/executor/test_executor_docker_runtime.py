"""The container runtime's contract over the Docker Engine, and what only a real engine can show."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.executor.test_executor_runtime import RuntimeContract
from tests.integration.conftest import docker

from compute_horde.executor import DockerRuntime, ExecutorSettings
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.runtime import STDOUT, ContainerRuntime, ContainerSpec

pytestmark = pytest.mark.engine


def ignore(stream: int, data: bytes) -> None:
    """Take what is printed and forget it."""


@pytest.fixture
def settings(tmp_path: Path) -> ExecutorSettings:
    return ExecutorSettings(work_dir=tmp_path / "work", memory_bytes=64 * 2**20, pids_limit=32)


@pytest.fixture
async def docker_runtime(settings: ExecutorSettings) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(settings)
    yield runtime
    await runtime.remove_leftovers(frozenset)
    await runtime.close()


class TestDockerRuntime(RuntimeContract):
    @pytest.fixture
    def ref(self, busybox_image: str) -> str:
        return busybox_image

    @pytest.fixture
    def runtime(self, docker_runtime: DockerRuntime) -> DockerRuntime:
        return docker_runtime

    async def kill(self, runtime: ContainerRuntime, name: str) -> None:
        await asyncio.to_thread(docker, "kill", name)


async def inspect(name: str) -> Any:
    process = await asyncio.create_subprocess_exec("docker", "inspect", name, stdout=asyncio.subprocess.PIPE)
    return json.loads((await process.communicate())[0])[0]


async def test_the_sandbox(docker_runtime: DockerRuntime, busybox_image: str) -> None:
    image = await docker_runtime.ensure_image(busybox_image)
    spec = ContainerSpec(token=str(uuid.uuid4()), image=image, command=("sleep", "600"))
    await docker_runtime.start(spec, ignore)
    shown = await inspect(spec.name)
    host = shown["HostConfig"]
    assert shown["Image"] == image.id
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["PidsLimit"], host["Memory"], host["MemorySwap"]) == (32, 64 * 2**20, 64 * 2**20)
    assert host["NanoCpus"] > 0
    assert not host["Privileged"]
    assert (host["PidMode"], host["IpcMode"], host["LogConfig"]["Type"]) == ("", "private", "local")
    assert not host["ReadonlyRootfs"]


async def build(name: str, dockerfile: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "docker", "build", "-q", "-t", name, "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    await process.communicate(dockerfile.encode())


async def test_what_goes_into_a_volume_of_the_image_is_counted(
    docker_runtime: DockerRuntime, busybox_image: str
) -> None:
    await build("compute-horde-test/volume:1", f"FROM {busybox_image}\nVOLUME /data\n")
    image = await docker_runtime.ensure_image("compute-horde-test/volume:1")
    script = "head -c 4000000 /dev/zero > /data/big"
    spec = ContainerSpec(token=str(uuid.uuid4()), image=image, command=("sh", "-c", script))
    container = await docker_runtime.start(spec, ignore)
    await container.wait()
    assert await container.written_bytes() >= 4_000_000
    await container.remove()


async def test_read_only_root_where_the_image_allows_it(docker_runtime: DockerRuntime, busybox_image: str) -> None:
    name = "compute-horde-test/read-only:1"
    await build(name, f'FROM {busybox_image}\nLABEL compute-horde.read-only-root="true"\n')
    image = await docker_runtime.ensure_image(name)
    printed = bytearray()
    script = "touch /file 2>/dev/null || echo read-only; touch /tmp/file && echo writable"
    spec = ContainerSpec(token=str(uuid.uuid4()), image=image, command=("sh", "-c", script))
    container = await docker_runtime.start(spec, lambda stream, data: printed.extend(data))
    await container.wait()
    await container.remove()
    assert image.read_only_root
    assert printed == b"read-only\nwritable\n"


async def test_an_image_is_pulled_when_missing(docker_runtime: DockerRuntime, registry: str) -> None:
    image = await docker_runtime.ensure_image(f"{registry}/busybox:1")
    assert image.id.startswith("sha256:")
    assert await docker_runtime.ensure_image(f"{registry}/busybox:1") == image


async def test_an_image_that_the_registry_does_not_have(docker_runtime: DockerRuntime, registry: str) -> None:
    with pytest.raises(JobFailure) as caught:
        await docker_runtime.ensure_image(f"{registry}/busybox:no-such-tag")
    assert caught.value.problem.code == "image_not_found"


async def test_a_registry_that_is_down(docker_runtime: DockerRuntime, engine: str) -> None:
    with pytest.raises(JobFailure) as caught:
        await docker_runtime.ensure_image("127.0.0.1:9/nothing:1")
    assert caught.value.problem.code == "image_pull_failed"


async def test_an_engine_that_is_down(tmp_path: Path) -> None:
    runtime = DockerRuntime(ExecutorSettings(docker_url=f"unix://{tmp_path}/none.sock"))
    with pytest.raises(JobFailure) as caught:
        await runtime.check()
    assert caught.value.problem.code == "engine_unavailable"
    await runtime.close()


async def test_a_start_that_is_cancelled_leaves_no_container(
    docker_runtime: DockerRuntime, busybox_image: str
) -> None:
    image = await docker_runtime.ensure_image(busybox_image)
    await docker_runtime.check()
    for delay in (0, 0.005, 0.02, 0.06):
        spec = ContainerSpec(token=str(uuid.uuid4()), image=image, command=("sleep", "600"))
        starting = asyncio.create_task(docker_runtime.start(spec, ignore))
        await asyncio.sleep(delay)
        starting.cancel()
        await asyncio.wait({starting})
        if starting.cancelled():
            assert await docker_runtime.remove_leftovers(frozenset) == 0


async def test_a_missing_sandbox_is_a_typed_failure(
    settings: ExecutorSettings, docker_runtime: DockerRuntime, engine: str
) -> None:
    runtime = DockerRuntime(settings.model_copy(update={"runsc": "require"}))
    if "runsc" in (await docker_runtime.check()).runtimes:
        pytest.skip("this engine has runsc")
    with pytest.raises(JobFailure) as caught:
        await runtime.check()
    assert caught.value.problem.code == "sandbox_unsafe"
    await runtime.close()


async def test_much_output_arrives_whole(docker_runtime: DockerRuntime, busybox_image: str) -> None:
    image = await docker_runtime.ensure_image(busybox_image)
    command = ("sh", "-c", "head -c 200000000 /dev/zero; echo end")
    size = 0
    last = b""

    def sink(stream: int, data: bytes) -> None:
        nonlocal size, last
        assert stream == STDOUT
        size, last = size + len(data), data

    spec = ContainerSpec(token=str(uuid.uuid4()), image=image, command=command)
    container = await docker_runtime.start(spec, sink)
    ended = await container.wait()
    await container.remove()
    assert ended.exit_status == 0
    assert size == 200_000_004
    assert last.endswith(b"end\n")

"""What every container runtime does. Here over the fake; tests/integration runs the same over Docker."""

import asyncio
import re
import uuid
from pathlib import Path

import pytest

from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.fake import FakeProcess, FakeRuntime
from compute_horde.executor.runtime import (
    STDERR,
    STDOUT,
    ContainerRuntime,
    ContainerSpec,
    Ended,
    Mount,
    RunningContainer,
)

TALK = ("sh", "-c", "echo one; sleep 0.5; printf two; exit 3")
SUICIDE = ("sh", "-c", "sh -c 'kill -9 $$'; exit $?")
MIXED = ("sh", "-c", "echo out; echo err >&2; echo $NAME > /output/file; exit 3")


class RuntimeContract:
    """Inherit and give the fixtures ``runtime`` and ``ref``, and a way past the runtime."""

    async def kill(self, runtime: ContainerRuntime, name: str) -> None:
        """What an operator does to a container."""
        raise NotImplementedError

    @pytest.fixture
    def token(self) -> str:
        return f"contract-{uuid.uuid4()}"

    async def spec(self, runtime: ContainerRuntime, ref: str, token: str, *command: str) -> ContainerSpec:
        return ContainerSpec(token=token, image=await runtime.ensure_image(ref), command=command)

    async def test_looks_at_the_engine(self, runtime: ContainerRuntime) -> None:
        facts = await runtime.check()
        assert facts.memory_limit
        assert facts.pids_limit
        assert facts.cpus >= 1

    async def test_output_exit_status_environment_and_mounts(
        self, runtime: ContainerRuntime, ref: str, token: str, tmp_path: Path
    ) -> None:
        tmp_path.chmod(0o777)  # noqa: ASYNC240 - nothing else runs here
        printed: dict[int, bytes] = {STDOUT: b"", STDERR: b""}

        def sink(stream: int, data: bytes) -> None:
            printed[stream] += data

        spec = ContainerSpec(
            token=token,
            image=await runtime.ensure_image(ref),
            command=MIXED,
            env={"NAME": "value"},
            mounts=(Mount(tmp_path, "/output"),),
        )
        container = await runtime.start(spec, sink)
        ended = await container.wait()
        await container.remove()
        assert (ended.exit_status, ended.out_of_memory) == (3, False)
        assert printed == {STDOUT: b"out\n", STDERR: b"err\n"}
        assert (tmp_path / "file").read_text() == "value\n"

    async def test_stops_and_removes_twice_without_complaint(
        self, runtime: ContainerRuntime, ref: str, token: str
    ) -> None:
        container = await runtime.start(await self.spec(runtime, ref, token, "sleep", "600"), lambda *_: None)
        waiting = asyncio.create_task(container.wait())
        await container.stop(0)
        await container.stop(0)
        assert (await waiting).exit_status != 0
        await container.remove()
        await container.remove()

    async def test_waiting_may_be_cancelled_and_begun_again(
        self, runtime: ContainerRuntime, ref: str, token: str
    ) -> None:
        container = await runtime.start(await self.spec(runtime, ref, token, "sleep", "600"), lambda *_: None)
        waiting = asyncio.create_task(container.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        again = asyncio.create_task(container.wait())
        await container.remove()
        await asyncio.wait({again})
        again.exception()

    async def test_an_image_is_known_by_its_digest(self, runtime: ContainerRuntime, ref: str) -> None:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", (await runtime.ensure_image(ref)).id)

    async def test_unknown_image(self, runtime: ContainerRuntime) -> None:
        with pytest.raises(JobFailure) as caught:
            await runtime.ensure_image("Not A Name")
        assert caught.value.problem.code == "image_not_found"

    async def test_unknown_command_leaves_no_container(
        self, runtime: ContainerRuntime, ref: str, token: str
    ) -> None:
        with pytest.raises(JobFailure) as caught:
            await runtime.start(await self.spec(runtime, ref, token, "no-such-program"), lambda *_: None)
        assert caught.value.problem.code == "container_start_failed"
        assert await runtime.remove_leftovers(frozenset) == 0

    async def test_gpus_that_are_not_there(self, runtime: ContainerRuntime, ref: str, token: str) -> None:
        spec = ContainerSpec(token=token, image=await runtime.ensure_image(ref), gpu=True)
        with pytest.raises(JobFailure) as caught:
            await runtime.start(spec, lambda *_: None)
        assert caught.value.problem.code == "gpu_unavailable"

    async def test_leftovers_are_those_of_nobody_alive(self, runtime: ContainerRuntime, ref: str) -> None:
        alive, dead = f"contract-{uuid.uuid4()}", f"contract-{uuid.uuid4()}"
        for token in (alive, dead):
            await runtime.start(await self.spec(runtime, ref, token, "sleep", "600"), lambda *_: None)
        assert await runtime.remove_leftovers(lambda: frozenset({alive})) == 1
        assert await runtime.remove_leftovers(lambda: frozenset({alive})) == 0
        assert await runtime.remove_leftovers(frozenset) == 1

    async def test_a_container_is_taken_over_with_all_that_it_printed(
        self, runtime: ContainerRuntime, ref: str, token: str
    ) -> None:
        first, printed = bytearray(), bytearray()
        began = list[bool]()

        async def begun() -> None:
            began.append(True)

        spec = await self.spec(runtime, ref, token, *TALK)
        container = await runtime.start(spec, lambda _, data: first.extend(data), begun)
        while b"one" not in first:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        await container.release()
        again = await runtime.resume(spec.name, lambda _, data: printed.extend(data))
        assert again is not None
        assert (await again.age()).running
        ended = await again.wait()
        age = await again.age()
        assert (began, ended.exit_status, bytes(printed)) == ([True], 3, b"one\ntwo")
        assert (age.running, 0.3 < age.seconds < 30, again.may_be_cut) == (False, True, False)
        late = bytearray()
        ended_before = await runtime.resume(spec.name, lambda _, data: late.extend(data))
        assert ended_before is not None
        assert (await ended_before.wait()).exit_status == 3
        assert late == printed
        with pytest.raises(JobFailure) as caught:
            await runtime.start(spec, lambda *_: None)
        assert caught.value.problem.code == "executor_disconnected", "it never runs a second time"
        await runtime.remove(spec.name)
        await runtime.remove(spec.name)
        assert await runtime.resume(spec.name, lambda *_: None) is None

    async def started(self, runtime: ContainerRuntime, spec: ContainerSpec, *, watched: bool) -> RunningContainer:
        """A container that runs, in the hands of whoever began it, or of the next who takes it over."""
        container: RunningContainer | None = await runtime.start(spec, lambda *_: None)
        if not watched and container is not None:
            await container.release()
            container = await runtime.resume(spec.name, lambda *_: None)
        assert container is not None
        return container

    @pytest.mark.parametrize("watched", [True, False])
    async def test_a_kill_from_outside_is_told_from_other_ends(
        self, runtime: ContainerRuntime, ref: str, token: str, *, watched: bool
    ) -> None:
        spec = await self.spec(runtime, ref, token, "sleep", "600")
        container = await self.started(runtime, spec, watched=watched)
        await self.kill(runtime, spec.name)
        assert await container.wait() == Ended(137, out_of_memory=False, killed=True)
        await container.remove()

    async def test_a_kill_from_outside_is_found_afterwards(
        self, runtime: ContainerRuntime, ref: str, token: str
    ) -> None:
        spec = await self.spec(runtime, ref, token, "sleep", "600")
        await (await runtime.start(spec, lambda *_: None)).release()
        await self.kill(runtime, spec.name)
        found = await runtime.resume(spec.name, lambda *_: None)
        assert found is not None
        assert await found.wait() == Ended(137, out_of_memory=False, killed=True)
        await found.remove()

    @pytest.mark.parametrize("watched", [True, False])
    async def test_our_own_stop_is_no_kill_from_outside(
        self, runtime: ContainerRuntime, ref: str, token: str, *, watched: bool
    ) -> None:
        spec = await self.spec(runtime, ref, token, "sleep", "600")
        container = await self.started(runtime, spec, watched=watched)
        waiting = asyncio.create_task(container.wait())
        await asyncio.sleep(0)
        await container.stop(0)
        assert await waiting == Ended(137, out_of_memory=False, killed=False)
        await container.remove()

    @pytest.mark.parametrize("watched", [True, False])
    async def test_a_job_that_kills_itself_is_not_killed_from_outside(
        self, runtime: ContainerRuntime, ref: str, token: str, *, watched: bool
    ) -> None:
        spec = await self.spec(runtime, ref, token, *SUICIDE)
        container = await self.started(runtime, spec, watched=watched)
        assert await container.wait() == Ended(137, out_of_memory=False, killed=False)
        await container.remove()

    async def test_a_start_that_cannot_be_noted_leaves_no_container(
        self, runtime: ContainerRuntime, ref: str, token: str
    ) -> None:
        async def begun() -> None:
            raise failure("internal_error", "The disk is full.")

        spec = await self.spec(runtime, ref, token, *TALK)
        with pytest.raises(JobFailure) as caught:
            await runtime.start(spec, lambda *_: None, begun)
        assert caught.value.problem.code == "internal_error"
        assert await runtime.resume(spec.name, lambda *_: None) is None

    async def test_closes_twice_and_opens_again(self, runtime: ContainerRuntime) -> None:
        await runtime.close()
        await runtime.close()
        await runtime.check()


async def _shell(process: FakeProcess) -> int:
    if process.spec.command == SUICIDE:
        return 137
    return await (_talk if process.spec.command == TALK else _mixed)(process)


async def _talk(process: FakeProcess) -> int:
    process.print("one\n")
    await asyncio.sleep(0.5)
    process.print("two")
    return 3


async def _mixed(process: FakeProcess) -> int:
    process.print("out\n", STDOUT)
    process.print("err\n", STDERR)
    (process.folder("/output") / "file").write_text(process.spec.env["NAME"] + "\n")
    return 3


class TestFakeRuntime(RuntimeContract):
    @pytest.fixture
    def ref(self) -> str:
        return "image"

    @pytest.fixture
    def runtime(self) -> ContainerRuntime:
        return FakeRuntime(programs={"sh": _shell})

    async def kill(self, runtime: ContainerRuntime, name: str) -> None:
        assert isinstance(runtime, FakeRuntime)
        await runtime.containers[name].kill_from_outside()

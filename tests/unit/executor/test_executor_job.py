"""A job's conversation with its miner, over memory channels and a fake runtime."""

import asyncio
import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compute_horde.executor.fake import FACTS, FakeProcess, FakeRuntime, OutOfMemory, Program
from compute_horde.executor.fake_miner import FakeMiner, initial_request, job_request
from compute_horde.executor.link import LinkLost, MinerLink
from compute_horde.executor.runtime import STDERR
from compute_horde.executor.service import Executor
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.protocol.enums import DockerPreset
from compute_horde.protocol.facilitator_validator import StreamingClientDetails
from compute_horde.protocol.validator_miner import ExecutorTiming, GenericError
from compute_horde.transport.channel import Channel, ChannelClosed
from compute_horde.transport.memory import MemoryDialer

FIRST, SECOND = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))
HAPPY = ["V0ExecutorReadyRequest", "V0VolumesReadyRequest", "V0ExecutionDoneRequest", "V0JobFinishedRequest"]
NO_EXECUTION = ExecutorTiming(allowed_leeway=0, download_time_limit=5, execution_time_limit=0, upload_time_limit=5)


@pytest.fixture
def settings(tmp_path: Path) -> ExecutorSettings:
    return ExecutorSettings(work_dir=tmp_path / "work")


async def run(
    settings: ExecutorSettings,
    miner: FakeMiner,
    programs: Mapping[str, Program] | None = None,
    runtime: FakeRuntime | None = None,
) -> FakeRuntime:
    """Do the miner's job and look at what is left."""
    runtime = runtime or FakeRuntime(programs=programs or {})
    async with asyncio.timeout(10):
        await Executor(settings, runtime, miner.dialer).run(miner.url, miner.token)
    assert runtime.containers == {}
    assert list(settings.folder.iterdir()) == []
    return runtime


def failed(miner: FakeMiner, code: str) -> Any:
    last = miner.last
    assert last.context["problem"]["code"] == code, last
    return last


async def test_the_stages_in_order(settings: ExecutorSettings) -> None:
    miner = FakeMiner(job={"docker_run_cmd": ["echo", "hello"]})
    await run(settings, miner)
    assert miner.names() == HAPPY
    assert miner.last.docker_process_stdout == "hello\n"
    assert (miner.last.exit_status, miner.last.timed_out) == (0, False)


@pytest.mark.parametrize("name", HAPPY)
async def test_a_lost_connection_is_dialled_again_and_every_message_repeated(
    settings: ExecutorSettings, name: str
) -> None:
    miner = FakeMiner(drop_after=(name,))
    runtime = await run(settings, miner)
    assert len(miner.connections) == 2
    assert miner.names() == HAPPY
    assert len(runtime.specs) == 1, "the job ran once"


async def test_a_token_that_the_miner_does_not_know(settings: ExecutorSettings) -> None:
    miner = FakeMiner()
    miner.refuses = True
    await run(settings, miner)
    assert miner.connections == []


async def test_a_miner_that_sends_no_job_in_time(settings: ExecutorSettings) -> None:
    async def silent(url: str, headers: Mapping[str, str], channel: Channel) -> None:
        await channel.receive()

    dialer = MemoryDialer()
    dialer.serve("ws://", silent)
    await Executor(settings, FakeRuntime(), dialer).run("ws://miner", "token", startup_limit_s=0)
    assert list(settings.folder.iterdir()) == []


async def test_a_miner_that_cannot_be_reached_is_given_up() -> None:
    link = MinerLink(MemoryDialer(), "ws://nobody", "token", redial_s=0)
    with pytest.raises(LinkLost):
        await link.initial()
    await link.close()


async def test_repeated_requests_and_nonsense_are_dropped() -> None:
    async def repeats(url: str, headers: Mapping[str, str], channel: Channel) -> None:
        for uuid in (FIRST, SECOND):
            await channel.send(initial_request(uuid).to_frame())
            await channel.send("{}")
            await channel.send(job_request(uuid).to_frame())
            await channel.send(GenericError(details="token").to_frame())
        with pytest.raises(ChannelClosed):
            await channel.receive()

    dialer = MemoryDialer()
    dialer.serve("ws://", repeats)
    link = MinerLink(dialer, "ws://miner/", "token")
    assert (await link.initial()).job_uuid == FIRST
    assert (await link.job()).job_uuid == FIRST
    await link.close()


@pytest.mark.parametrize(
    ("initial", "job", "code"),
    [
        ({"docker_image": "unknown"}, {}, "image_not_found"),
        ({"docker_image": None}, {"docker_image": "unknown"}, "image_not_found"),
        ({"executor_timing": None}, {}, "protocol_error"),
        ({"streaming_details": StreamingClientDetails(public_key="key")}, {}, "streaming_unsupported"),
        ({}, {"job_uuid": SECOND}, "protocol_error"),
        ({}, {"docker_run_cmd": ["false"]}, "nonzero_exit"),
        ({}, {"docker_run_cmd": ["unknown"]}, "container_start_failed"),
        ({}, {"artifacts_dir": "/output/x"}, "container_start_failed"),
        ({}, {"docker_run_options_preset": DockerPreset.NVIDIA_ALL}, "gpu_unavailable"),
        ({}, {"volume": {"volume_type": "inline", "contents": "no base64!"}}, "volume_not_base64"),
        ({}, {"volume": {"volume_type": "inline", "contents": "YWJj"}}, "volume_not_zip"),
        (
            {},
            {
                "output_upload": {
                    "output_upload_type": "single_file_put",
                    "url": "http://x/",
                    "relative_path": "none",
                }
            },
            "output_missing",
        ),
    ],
)
async def test_failures(settings: ExecutorSettings, initial: Any, job: Any, code: str) -> None:
    miner = FakeMiner(initial, job)
    await run(settings, miner)
    failed(miner, code)


async def test_a_volume_given_twice(settings: ExecutorSettings) -> None:
    volume = {"volume_type": "inline", "contents": ""}
    miner = FakeMiner({"volume": volume}, {"volume": volume})
    await run(settings, miner)
    failed(miner, "protocol_error")


async def test_one_time_limit_for_everything(settings: ExecutorSettings) -> None:
    miner = FakeMiner({"executor_timing": None, "timeout_seconds": 20})
    await run(settings, miner)
    assert miner.names() == HAPPY


async def test_a_stopped_job_keeps_what_it_wrote_and_goes_on(settings: ExecutorSettings) -> None:
    async def endless(process: FakeProcess) -> int:
        (process.folder("/artifacts") / "kept").write_text("kept")
        process.print("no line end", STDERR)
        await asyncio.Event().wait()
        return 0

    miner = FakeMiner(
        {"executor_timing": NO_EXECUTION.model_copy(update={"allowed_leeway": 1})},
        {"docker_run_cmd": ["endless"], "artifacts_dir": "/artifacts"},
    )
    await run(settings, miner, {"endless": endless})
    assert miner.names() == HAPPY
    assert (miner.last.timed_out, miner.last.exit_status) == (True, 143)
    assert miner.last.docker_process_stderr.endswith("The execution time limit of 0 s stopped the job.\n")


async def test_a_missing_output_of_a_stopped_job_is_blamed_on_the_limit(settings: ExecutorSettings) -> None:
    upload = {"output_upload_type": "single_file_put", "url": "http://x/", "relative_path": "none"}
    miner = FakeMiner(
        {"executor_timing": NO_EXECUTION}, {"docker_run_cmd": ["sleep", "9"], "output_upload": upload}
    )
    await run(settings, miner)
    last = failed(miner, "execution_timeout")
    assert (last.reason, last.docker_process_exit_status) == ("timeout", 143)
    assert "time limit" in last.docker_process_stderr


async def test_a_full_request_that_never_comes(settings: ExecutorSettings) -> None:
    async def forgetful(url: str, headers: Mapping[str, str], channel: Channel) -> None:
        limits = NO_EXECUTION.model_copy(update={"download_time_limit": 0})
        await channel.send(initial_request(FIRST, executor_timing=limits).to_frame())
        await channel.receive()
        frames.append(await channel.receive())
        await channel.close()

    frames: list[str] = []
    dialer = MemoryDialer()
    dialer.serve("ws://", forgetful)
    await Executor(settings, FakeRuntime(), dialer).run("ws://miner", "token")
    assert "miner_silent" in frames[0]


async def test_killed_for_memory(settings: ExecutorSettings) -> None:
    async def greedy(process: FakeProcess) -> int:
        process.print("so far")
        raise OutOfMemory

    miner = FakeMiner(job={"docker_run_cmd": ["greedy"]})
    await run(settings, miner, {"greedy": greedy})
    last = failed(miner, "out_of_memory")
    assert (last.docker_process_exit_status, last.docker_process_stdout) == (137, "so far")


async def test_a_disk_that_is_nearly_full(settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compute_horde.executor.disk.INTERVAL_SECONDS", 0)
    miner = FakeMiner(job={"docker_run_cmd": ["sleep"]})
    await run(settings.model_copy(update={"disk_reserve_bytes": 1 << 60}), miner)
    failed(miner, "disk_full")


async def test_a_job_that_writes_into_its_own_layer(
    settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def writes(process: FakeProcess) -> int:
        process.written = 1 << 50
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr("compute_horde.executor.disk.INTERVAL_SECONDS", 0)
    miner = FakeMiner(job={"docker_run_cmd": ["writes"]})
    await run(settings, miner, {"writes": writes})
    assert failed(miner, "disk_full").docker_process_exit_status is None


async def test_a_bug_of_ours_is_a_horde_failure_that_tells_no_secrets(settings: ExecutorSettings) -> None:
    async def bug(process: FakeProcess) -> int:
        raise KeyError("secret")

    miner = FakeMiner(job={"docker_run_cmd": ["bug"]})
    await run(settings, miner, {"bug": bug})
    last = failed(miner, "internal_error")
    assert (last.reported_by, last.reason) == ("executor", "unhandled_exception")
    assert "secret" not in last.to_frame()


async def test_an_engine_that_limits_nothing_is_a_failed_security_check(settings: ExecutorSettings) -> None:
    miner = FakeMiner()
    await run(settings, miner, runtime=FakeRuntime(facts=dataclasses.replace(FACTS, pids_limit=False)))
    assert failed(miner, "sandbox_unsafe").reason == "security_check_failed"


async def test_cancelling_kills_and_removes(settings: ExecutorSettings) -> None:
    miner, runtime = FakeMiner(job={"docker_run_cmd": ["sleep"]}), FakeRuntime()
    running = asyncio.create_task(Executor(settings, runtime, miner.dialer).run(miner.url, miner.token))
    async with asyncio.timeout(10):
        while not runtime.containers:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert runtime.containers == {}
    assert list(settings.folder.iterdir()) == []


async def test_a_script_of_an_old_peer(settings: ExecutorSettings) -> None:
    async def python(process: FakeProcess) -> int:
        process.print(process.folder("/script.py").read_text())
        return 0

    miner = FakeMiner(job={"raw_script": "print(1)"})
    await run(settings, miner, {"python": python})
    assert miner.last.docker_process_stdout == "print(1)"


async def test_two_jobs_at_once(settings: ExecutorSettings) -> None:
    runtime, miners = FakeRuntime(), [FakeMiner(), FakeMiner()]
    executors = [Executor(settings, runtime, miner.dialer) for miner in miners]
    for executor in executors:
        await executor.warm()
    jobs = zip(executors, miners, strict=True)
    await asyncio.gather(*(executor.run(miner.url, miner.token) for executor, miner in jobs))
    assert [miner.names() for miner in miners] == [HAPPY, HAPPY]


async def test_a_result_too_large_for_a_frame_loses_the_middle_of_its_streams(
    settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compute_horde.executor.results.MAX_MINER_FRAME_BYTES", 400_000)

    async def loud(process: FakeProcess) -> int:
        process.print("a" * 300_000 + "z" * 300_000)
        (process.folder("/artifacts") / "art").write_bytes(b"art")
        return 0

    miner = FakeMiner(job={"docker_run_cmd": ["loud"], "artifacts_dir": "/artifacts"})
    await run(settings, miner, {"loud": loud})
    assert miner.last.docker_process_stdout == "a" * 50_000 + " ... " + "z" * 50_000
    assert miner.last.artifacts == {"/artifacts/art": base64.b64encode(b"art").decode()}


async def test_a_token_that_is_no_name(settings: ExecutorSettings) -> None:
    with pytest.raises(ValueError, match="token"):
        await Executor(settings, FakeRuntime(), MemoryDialer()).run("ws://miner", "../../etc")


async def test_a_job_that_was_begun_before_and_left_no_trace_is_not_begun_again(
    settings: ExecutorSettings,
) -> None:
    """The miner tells of what it has handed out first, so that this is known in time."""
    miner = FakeMiner(job={"docker_run_cmd": ["echo", "again"]}, handed_out=True)
    runtime = await run(settings, miner)
    failed(miner, "executor_disconnected")
    assert runtime.specs == []

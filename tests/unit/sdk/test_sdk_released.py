"""Programs for SDK 0.0.19, and for the client before 0.0.1, run as they are (PROTOCOL.md 2.12 and 2.13)."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeError,
    ComputeHordeJob,
    ComputeHordeJobResult,
    ComputeHordeJobSpec,
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    ComputeHordeJobTimeoutError,
    ComputeHordeNotFoundError,
    ComputeHordeValidationError,
    ExecutorClass,
    HTTPInputVolume,
    HTTPOutputVolume,
    HuggingfaceInputVolume,
    InlineInputVolume,
)

DONE: dict[str, Any] = {"miner_response": {"docker_process_stdout": "out", "docker_process_stderr": "err"}}
FAILED: dict[str, Any] = {
    "horde_failure_details": {"reported_by": "miner", "reason": "executor_disconnected", "message": "gone"}
}


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def client(fake: FakeFacilitator) -> AsyncIterator[ComputeHordeClient]:
    async with fake.client(poll_first_s=0.001, poll_cap_s=0.004) as made:
        yield made
    assert asyncio.all_tasks() == {asyncio.current_task()}


def spec() -> ComputeHordeJobSpec:
    return ComputeHordeJobSpec(
        executor_class=ExecutorClass.always_on__gpu_24gb,
        job_namespace="SN123.0",
        docker_image="my-username/my-image:latest",
        args=["python", "my_script.py"],
        env={"MY_VAR": "1"},
        artifacts_dir="/artifacts",
        input_volumes={
            "/volume/models/model01": HuggingfaceInputVolume(repo_id="HuggingFaceH4/zephyr-7b-beta"),
            "/volume/version.txt": InlineInputVolume(contents="dmVyc2lvbj0y"),
            "/volume/in": InlineInputVolume.from_file_contents("a.txt", b"x", compress=True),
            "/volume/dataset.json": HTTPInputVolume(url="https://e.com/d"),
        },
        output_volumes={
            "/output/results.json": HTTPOutputVolume(
                http_method="POST", url="https://e.com/up", form_fields={"key": "f"}
            ),
            "/output/image.png": HTTPOutputVolume(
                http_method="PUT", url="https://e.com/p", signed_headers={"A": "b"}
            ),
        },
        download_time_limit_sec=10,
        execution_time_limit_sec=20,
        upload_time_limit_sec=30,
    )


async def test_a_program_of_0_0_19(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await client.create_job(spec(), on_trusted_miner=True)
    assert isinstance(job, ComputeHordeJob)
    body = json.loads(fake.sent("POST", "/api/v1/job-docker/")[0].content)
    assert (body["on_trusted_miner"], body["execution_time_limit"], body["args"]) == (
        True,
        20,
        ["python", "my_script.py"],
    )
    assert (job.streaming_public_cert, job.streaming_private_key, job.streaming_server_port) == (None, None, None)
    assert (job.streaming_server_cert, job.streaming_server_address) == (None, None)
    fake.advance(job.uuid, "accepted")
    told: list[str] = []

    def note(job: ComputeHordeJob, entry: ComputeHordeJobStatusEntry) -> None:
        told.append(entry.status)
        if entry.status is ComputeHordeJobStatus.ACCEPTED:
            fake.advance(job.uuid, "completed", DONE, artifacts={"/artifacts/a": "eA=="}, stdout="out")

    await job.wait(timeout=5, status_callback=note)
    assert told == ["sent", "accepted", "completed"]
    assert job.status == "completed"
    assert job.status.is_successful()
    assert job.result is not None
    assert (job.result.stdout, job.result.artifacts) == ("out", {"/artifacts/a": b"x"})
    (found,) = await client.get_jobs(page=1, page_size=5)
    assert found.uuid == (await client.get_job(job.uuid)).uuid
    assert [one.uuid async for one in client.iter_jobs()] == [job.uuid]


async def test_the_fields_of_a_spec_and_of_a_result_in_their_order() -> None:
    made = ComputeHordeJobSpec(
        ExecutorClass.always_on__test,
        "ns",
        "alpine",
        1,
        2,
        3,
        ["a"],
        {"B": "c"},
        "/artifacts",
        None,
        None,
        True,
        4,
    )
    assert (made.download_time_limit_sec, made.execution_time_limit_sec, made.upload_time_limit_sec) == (1, 2, 3)
    assert (made.artifacts_dir, made.streaming, made.streaming_start_time_limit_sec) == ("/artifacts", True, 4)
    result = ComputeHordeJobResult("out", "err", {"/a": b""}, {})
    assert (result.stdout, result.stderr, result.artifacts, result.upload_results) == (
        "out",
        "err",
        {"/a": b""},
        {},
    )


async def test_the_flat_call(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await client.create_job(
        executor_class=ExecutorClass.spin_up_4min__gpu_24gb,
        job_namespace="SN123.0",
        docker_image="my-username/my-image:latest",
        args=["python", "my_script.py"],
        env={"MY_VAR": "1"},
        artifacts_dir="/artifacts",
        input_volumes={"/volume/v.txt": InlineInputVolume(contents="dmVyc2lvbj0y")},
        output_volumes={"/output/r": HTTPOutputVolume(http_method="PUT", url="https://e.com/p")},
        run_cross_validation=False,
        trusted_output_volumes=None,
    )
    positional = await client.create_job(ExecutorClass.always_on__test, "ns", "alpine", ["true"], {"A": "b"})
    assert fake.jobs[job.uuid].download_time_limit == 60
    assert fake.jobs[positional.uuid].env == {"A": "b"}


async def test_a_wrong_call_is_told_as_python_would(client: ComputeHordeClient) -> None:
    call: Any = client.create_job
    with pytest.raises(TypeError, match=r"create_job\(\) missing 1 required positional argument: 'docker_image'"):
        await call("always_on.test", "ns")
    with pytest.raises(TypeError, match=r"create_job\(\) got an unexpected keyword argument 'imgae'"):
        await call("always_on.test", "ns", "alpine", imgae="x")
    with pytest.raises(TypeError, match=r"create_job\(\) got an unexpected keyword argument 'docker_image'"):
        await call(spec(), docker_image="alpine")
    with pytest.raises(TypeError, match=r"create_job\(\) got multiple values for argument 'executor_class'"):
        await call("always_on.test", "ns", "alpine", executor_class="always_on.test")
    with pytest.raises(ComputeHordeValidationError) as caught:
        await call(job_spec={"docker_image": "alpine"})
    assert caught.value.field == "job_spec"


async def test_an_asynchronous_callback_and_its_exception(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await client.create_job(job_spec=spec())

    async def refuse(job: ComputeHordeJob, entry: ComputeHordeJobStatusEntry) -> None:
        await asyncio.sleep(0)
        if entry.status == "accepted":
            raise RuntimeError("enough")

    waiting = asyncio.create_task(job.wait(status_callback=refuse))
    await asyncio.sleep(0.01)
    fake.advance(job.uuid, "accepted")
    with pytest.raises(RuntimeError, match="enough"):
        await waiting


async def test_a_callback_is_called_for_a_job_that_ended_long_ago(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    created = await client.create_job(spec())
    fake.advance(created.uuid, "failed", FAILED)
    job = await client.get_job(created.uuid)
    told: list[ComputeHordeJobStatusEntry] = []
    await job.wait(status_callback=lambda job, entry: told.append(entry))
    assert told == job.status_history
    assert job.error is not None
    assert (job.error.reason, job.error.reported_by) == ("executor_disconnected", "miner")
    assert job.error.message == "gone"


async def test_a_slow_callback_does_not_hold_up_the_timeout(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await client.create_job(spec())

    async def slow(job: ComputeHordeJob, entry: ComputeHordeJobStatusEntry) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ComputeHordeJobTimeoutError, match="did not end within"):
        await job.wait(timeout=0.01, status_callback=slow)


async def test_what_follows_a_job_with_a_callback_fails_with_it(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await client.create_job(spec())
    del fake.jobs[job.uuid]
    with pytest.raises(ComputeHordeNotFoundError):
        await job.wait(status_callback=lambda job, entry: None)


async def test_reporting_a_cheat_returns_the_confirmation(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    own = await client.create_job(spec())
    trusted = await client.create_job(spec(), True)
    said = await client.report_cheated_job(own.uuid, trusted.uuid, details={"diff": [1, None]})
    assert said == "Job reported as cheated"


async def test_errors_are_caught_as_before(client: ComputeHordeClient) -> None:
    with pytest.raises(ComputeHordeNotFoundError):
        await client.get_job("00000000-0000-0000-0000-000000000000")
    for kind in (ComputeHordeNotFoundError, ComputeHordeJobTimeoutError):
        assert issubclass(kind, ComputeHordeError)
    with pytest.raises(ValueError, match="Input volume paths must start with '/volume/'"):
        await client.create_job(
            "always_on.test", "ns", "a", input_volumes={"/x": HTTPInputVolume(url="http://e.c")}
        )


async def test_a_queue_holds_its_jobs_together(fake: FakeFacilitator) -> None:
    async with (
        fake.client(job_queue="one") as one,
        fake.client(job_queue="two") as two,
        fake.client() as everything,
    ):
        first, second = await one.create_job(spec()), await one.create_job(spec())
        other = await two.create_job(spec())
        fake.advance(first.uuid, "completed", DONE)
        assert [job.uuid async for job in one.iter_jobs()] == [second.uuid, first.uuid]
        assert [job.uuid async for job in one.iter_jobs(pending=True)] == [second.uuid]
        assert [job.uuid async for job in one.iter_jobs(pending=False)] == [first.uuid]
        assert [job.uuid async for job in everything.iter_jobs()] == [other.uuid, second.uuid, first.uuid]
        assert [job.job_queue for job in await two.get_jobs()] == ["two"]
        wrong: Any = "yes"
        with pytest.raises(ComputeHordeValidationError) as caught:
            _ = [job async for job in one.iter_jobs(pending=wrong)]
    assert caught.value.field == "pending"

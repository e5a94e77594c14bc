"""What objects of the library show of themselves: enough to help, and no secrets."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJob,
    ComputeHordeJobResult,
    ComputeHordeJobSpec,
    ExecutorClass,
    HTTPInputVolume,
    HTTPOutputVolume,
    InlineInputVolume,
)

SECRET = "hunter2"
OWN: dict[str, Any] = {
    "job_failure_details": {
        "reason": "nonzero_return_code",
        "stage": "execution",
        "message": "exit <1>",
        "docker_process_exit_status": 1,
        "docker_process_stdout": "<script>alert(1)</script>" + "x" * 1000,
        "docker_process_stderr": "<b>",
    }
}


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def client(fake: FakeFacilitator) -> AsyncIterator[ComputeHordeClient]:
    async with fake.client(job_queue="night") as made:
        yield made


async def submit(client: ComputeHordeClient, **more: Any) -> ComputeHordeJob:
    return await client.create_job(ExecutorClass.always_on__test, "SN0", "alpine:<1>", **more)


async def test_a_job(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client, env={"TOKEN": SECRET})
    assert repr(job) == (
        f"ComputeHordeJob(uuid={job.uuid!r}, status='sent', executor_class='always_on.test', "
        "docker_image='alpine:<1>')"
    )
    fake.advance(job.uuid, "failed", OWN)
    await job.refresh_from_facilitator()
    assert repr(job).endswith(", error='nonzero_exit')")
    assert (job.executor_class, job.docker_image, job.job_namespace) == ("always_on.test", "alpine:<1>", "SN0")
    assert (job.job_queue, job.on_trusted_miner) == ("night", False)
    assert job.created_at.utcoffset() is not None


async def test_a_job_in_a_notebook_is_escaped(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    assert job.uuid in job._repr_html_()
    assert "stdout" not in job._repr_html_()
    fake.advance(job.uuid, "failed", OWN)
    await job.refresh_from_facilitator()
    shown = job._repr_html_()
    assert "alpine:&lt;1&gt;" in shown
    assert "exit &lt;1&gt;" in shown
    assert "&lt;b&gt;" in shown
    assert "<script>" not in shown
    assert "..." + "x" * 500 in shown
    assert "x" * 501 not in shown


async def test_the_client(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    assert repr(client) == (
        f"ComputeHordeClient(hotkey={fake.hotkey.ss58_address!r}, validator='validator', job_queue='night', "
        "facilitator_url='http://horde.test/')"
    )


def test_a_result_shows_sizes() -> None:
    result = ComputeHordeJobResult(SECRET, "", {"/a": b"xyz", "/b": b"1"}, exit_code=0)
    assert repr(result) == (
        "<ComputeHordeJobResult exit_code=0, stdout=7 characters, stderr=0 characters, artifacts=2 of 4 bytes, "
        "upload_results=0>"
    )
    cut = ComputeHordeJobResult(timed_out=True, notices=["cut"])
    assert repr(cut).endswith(", timed_out, notices=['cut']>")


def test_a_spec_and_its_volumes_keep_secrets() -> None:
    signed = f"https://user:{SECRET}@e.com/path?sig={SECRET}"
    spec = ComputeHordeJobSpec(
        ExecutorClass.always_on__test,
        "SN0",
        "alpine",
        args=["run"],
        env={"TOKEN": SECRET},
        input_volumes={
            "/volume/a": HTTPInputVolume(signed, sha256="0" * 64),
            "/volume/b": InlineInputVolume.from_text(SECRET),
            "/volume/c": InlineInputVolume("eA=="),
        },
        output_volumes={
            "/output/p": HTTPOutputVolume("POST", signed, form_fields={"policy": SECRET}),
            "/output/q": HTTPOutputVolume("PUT", "https://e.com/q", signed_headers={"X-Token": SECRET}),
        },
    )
    shown = repr(spec)
    assert SECRET not in shown
    assert InlineInputVolume.from_text(SECRET).contents not in shown
    for part in (
        "env={'TOKEN': ...}",
        "args=['run']",
        "HTTPInputVolume(url='https://e.com/path?...', sha256='" + "0" * 64,
        "unpack=False",
        "HTTPOutputVolume('POST', url='https://e.com/path?...', form_fields=['policy'])",
        "HTTPOutputVolume('PUT', url='https://e.com/q', signed_headers=['X-Token'])",
    ):
        assert part in shown
    assert "artifacts_dir" not in shown


def test_a_spec_that_is_wrong_can_still_be_shown() -> None:
    wrong: Any = ["A=1"]
    assert "env=['A=1']" in repr(ComputeHordeJobSpec("c", None, "i", env=wrong))

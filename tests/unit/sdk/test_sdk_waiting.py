"""Waiting for a job: pushed, polled, timed out, cancelled, broken off and resumed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeConnectionError,
    ComputeHordeJob,
    ComputeHordeJobTimeoutError,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeValidationError,
)

EVENTS = "/api/v1/events/"
JOBS = "/api/v1/jobs/"
FAST: dict[str, Any] = {"poll_first_s": 0.001, "poll_cap_s": 0.004}
DONE: dict[str, Any] = {
    "miner_response": {
        "docker_process_stdout": "out",
        "docker_process_stderr": "",
        "artifacts": {"/a/b": "eA=="},
        "upload_results": {},
        "exit_status": 0,
    }
}


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def client(fake: FakeFacilitator) -> AsyncIterator[ComputeHordeClient]:
    async with fake.client(**FAST) as made:
        yield made
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def submit(client: ComputeHordeClient) -> ComputeHordeJob:
    return await client.create_job("always_on.test", "SN0", "alpine")


async def until(condition: Callable[[], object]) -> None:
    """Turn the loop until the condition holds, and a little further, so that what caused it is over."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - looks at the fake's plain fields
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)


def looks(fake: FakeFacilitator, job: ComputeHordeJob) -> int:
    """How often it was asked for, alone or with others."""
    together = [one for one in fake.sent("GET", JOBS) if job.uuid in one.url.params.get_list("uuid")]
    return len(fake.sent("GET", f"{JOBS}{job.uuid}/")) + len(together)


async def test_changes_are_pushed(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: looks(fake, job) == 1)
    fake.advance(job.uuid, "accepted")
    await until(lambda: job.status == "accepted")
    fake.advance(job.uuid, "completed", DONE)
    await waiting
    assert looks(fake, job) == 1
    assert [entry.status for entry in job.status_history] == ["sent", "accepted", "completed"]
    assert job.result is not None
    assert (job.result.stdout, job.result.artifacts, job.result.exit_code) == ("out", {"/a/b": b"x"}, 0)
    await until(lambda: fake.open_streams == 0)


async def test_a_final_event_without_the_result_is_completed_by_a_look(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: looks(fake, job) == 1)
    fake.advance(job.uuid, "completed", None, stdout="from the job", artifacts={"/a": "eA=="})
    await waiting
    assert looks(fake, job) == 2
    assert job.result is not None
    assert (job.result.stdout, job.result.artifacts) == ("from the job", {"/a": b"x"})


async def test_a_job_without_uploads_is_whole_with_its_final_event(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: looks(fake, job) == 1)
    fake.advance(job.uuid, "completed", {"miner_response": {**DONE["miner_response"], "upload_results": None}})
    await waiting
    assert looks(fake, job) == 1
    assert job.result is not None
    assert (job.result.stdout, job.result.upload_results) == ("out", {})


async def test_the_stream_is_open_before_the_first_look(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.on_stream = lambda last_id: fake.advance(job.uuid, "completed", DONE)
    await job.wait()
    paths = [request.url.path for request in fake.requests]
    assert paths.index(EVENTS) < paths.index(f"/api/v1/jobs/{job.uuid}/")


async def test_a_finished_job_is_not_waited_for(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.advance(job.uuid, "completed", DONE)
    await job.refresh_from_facilitator()
    sent = len(fake.requests)
    await job.wait()
    await job.wait(timeout=0)
    assert len(fake.requests) == sent


async def test_all_waits_share_one_stream(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    jobs = [await submit(client) for _ in range(4)]
    twin = await client.get_job(jobs[0].uuid)
    waiting = asyncio.gather(*(job.wait() for job in [*jobs, twin]))
    await until(lambda: all(looks(fake, job) for job in jobs) and looks(fake, twin) == 2)
    assert fake.open_streams == 1
    for job in jobs:
        fake.advance(job.uuid, "completed", DONE)
    await waiting
    assert len(fake.sent("GET", EVENTS)) == 1
    assert twin.result == jobs[0].result
    again = await submit(client)
    waiting_again = asyncio.create_task(again.wait())
    await until(lambda: looks(fake, again) == 1)
    fake.advance(
        again.uuid, "failed", {"job_failure_details": {"reason": "unknown", "stage": "execution", "message": "m"}}
    )
    await waiting_again
    assert again.status.is_failed()
    assert len(fake.sent("GET", EVENTS)) == 2


async def test_a_lost_stream_goes_on_where_it_broke_off(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    opened: list[str] = []
    fake.on_stream = opened.append
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: looks(fake, job) == 1)
    fake.advance(job.uuid, "accepted")
    await until(lambda: job.status == "accepted")
    fake.drop()
    await until(lambda: len(opened) == 2 and fake.open_streams == 1)
    await until(lambda: looks(fake, job) >= 2)
    fake.advance(job.uuid, "completed", DONE)
    await waiting
    assert opened == ["", "2"]
    assert [entry.status for entry in job.status_history] == ["sent", "accepted", "completed"]


async def test_a_position_that_is_refused_is_forgotten(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    opened: list[str] = []
    fake.on_stream = opened.append
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: looks(fake, job) == 1)
    fake.advance(job.uuid, "accepted")
    await until(lambda: job.status == "accepted")
    fake.fail(EVENTS, httpx.Response(400, json={"Last-Event-ID": ["A valid integer is required."]}))
    fake.drop()
    await until(lambda: len(opened) == 2)
    fake.advance(job.uuid, "completed", DONE)
    await waiting
    assert opened == ["", ""]


async def test_a_stream_that_cannot_be_opened_at_first(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    fake.fail(EVENTS, httpx.ConnectError("no"), httpx.Response(503), httpx.ReadTimeout("stalled"))
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: fake.open_streams == 1)
    fake.advance(job.uuid, "completed", DONE)
    await waiting
    assert job.status == "completed"


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(404),
        httpx.Response(405),
        httpx.Response(501),
        httpx.Response(200, json={"no": "stream"}),
        httpx.Response(200, text="<html>"),
    ],
    ids=lambda it: f"{it.status_code}-{it.headers.get('content-type')}",
)
async def test_without_a_stream_the_job_is_polled(
    fake: FakeFacilitator, client: ComputeHordeClient, response: httpx.Response
) -> None:
    fake.fail(EVENTS, response)
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: looks(fake, job) >= 3)
    fake.advance(job.uuid, "completed", DONE)
    await waiting
    other = await submit(client)
    fake.advance(other.uuid, "completed", DONE)
    await other.wait()
    assert len(fake.sent("GET", EVENTS)) == 1


async def test_a_token_that_expires_before_the_stream(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.expired.add("token-1")
    fake.on_stream = lambda last_id: fake.advance(job.uuid, "completed", DONE)
    await job.wait()
    assert fake.logins == 2


async def test_garbage_on_the_stream_makes_the_client_look(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: looks(fake, job) == 1)
    fake.push_bytes(b": a comment\n\nevent: other\ndata: x\n\n")
    fake.push_bytes(b'event: status\ndata: {"broken\n\n')
    await until(lambda: looks(fake, job) == 2)
    fake.advance(job.uuid, "completed", DONE)
    await waiting


async def test_a_silent_stream_is_not_trusted_for_ever(fake: FakeFacilitator) -> None:
    async with fake.client(quiet_refresh_s=0.005) as client:
        job = await submit(client)
        waiting = asyncio.create_task(job.wait())
        await until(lambda: looks(fake, job) >= 3)
        fake.advance(job.uuid, "completed", DONE)
        await waiting


@pytest.mark.parametrize("pushes", [True, False])
async def test_a_timeout_is_kept_and_leaves_nothing_behind(pushes: bool, fake: FakeFacilitator) -> None:
    fake.pushes = pushes
    async with fake.client(**FAST) as client:
        job = await submit(client)
        began = time.monotonic()
        with pytest.raises(ComputeHordeJobTimeoutError) as caught:
            await job.wait(timeout=0.05)
        assert 0.045 <= time.monotonic() - began < 0.5
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.retryable
        assert job.uuid in caught.value.message
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await until(lambda: fake.open_streams == 0)
        fake.advance(job.uuid, "completed", DONE)
        await job.wait(timeout=5)


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "3"])
async def test_a_wrong_timeout(timeout: Any, client: ComputeHordeClient) -> None:
    job = await submit(client)
    with pytest.raises(ComputeHordeValidationError):
        await job.wait(timeout)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 20, 50])
async def test_being_cancelled_leaves_nothing_behind(
    turns: int, fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await until(lambda: fake.open_streams == 0)


async def test_one_cancelled_wait_does_not_disturb_another(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    first, second = asyncio.create_task(job.wait()), asyncio.create_task(job.wait())
    await until(lambda: looks(fake, job) == 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert fake.open_streams == 1
    fake.advance(job.uuid, "completed", DONE)
    await second


async def test_closing_the_client_ends_its_waits(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: looks(fake, job) == 1)
    await client.aclose()
    with pytest.raises(ComputeHordeConnectionError, match="closed"):
        await waiting


async def test_a_short_outage_is_waited_out(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.advance(job.uuid, "completed", DONE)
    fake.fail(f"/api/v1/jobs/{job.uuid}/", *[httpx.Response(503)] * 12)
    await job.wait()
    assert job.status == "completed"


async def test_a_long_outage_is_told(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.fail(f"/api/v1/jobs/{job.uuid}/", *[httpx.Response(503)] * 100)
    with pytest.raises(ComputeHordeResponseError, match="503"):
        await job.wait()


async def test_a_job_that_went_away(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    del fake.jobs[job.uuid]
    with pytest.raises(ComputeHordeNotFoundError):
        await job.wait()

"""What a facilitator answers is on the disk before: neither a job nor a result is lost with the power."""

import asyncio
from typing import Any

import pytest

from compute_horde.facilitator.store import JobStore
from compute_horde.storage.testing import HeldDisk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> HeldDisk:
    held = HeldDisk()
    monkeypatch.setattr(JobStore, "settled", lambda _: held.settled())
    return held


async def silent(task: "asyncio.Task[Any]") -> bool:
    done, _ = await asyncio.wait({task}, timeout=0.02)
    return not done


async def test_a_job_begins_at_once_and_is_promised_once_it_is_on_the_disk(bench: Any, disk: HeldDisk) -> None:
    peer, token = await bench.validator(), await bench.login()
    creating = asyncio.create_task(bench.post_job(token))
    job = (await peer.receive())["uuid"]
    assert await silent(creating)
    disk.let()
    answer = await creating
    assert (answer.status_code, answer.json()["uuid"]) == (201, job)


async def test_a_repeated_creation_promises_no_more_than_the_first(bench: Any, disk: HeldDisk) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = bench.body()
    headers = {**token, **bench.sign(body)}
    both = [
        asyncio.create_task(bench.http.post("/api/v1/job-docker/", json=body, headers=headers)) for _ in range(2)
    ]
    await peer.receive()
    assert all([await silent(creating) for creating in both])
    disk.let(2)
    first, second = [await creating for creating in both]
    assert first.json()["uuid"] == second.json()["uuid"]


async def test_a_disk_that_does_not_take_it_is_no_201(bench: Any, disk: HeldDisk) -> None:
    await bench.validator()
    token = await bench.login()
    disk.errors = 1
    answer = await bench.post_job(token)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)


async def test_only_what_ends_a_job_waits_for_the_disk(bench: Any, disk: HeldDisk) -> None:
    peer, token = await bench.validator(), await bench.login()
    disk.let()
    job = (await bench.post_job(token)).json()["uuid"]
    await peer.receive()
    for status in ("received", "accepted"):
        assert (await peer.status(job, status))["status"] == "success"
    assert disk.asked == 1
    ended = asyncio.create_task(peer.status(job, "failed"))
    assert await silent(ended)
    assert (await bench.job(job, token))["status_history"][-1]["status"] == "failed", "its reader need not wait"
    disk.let()
    assert (await ended)["status"] == "success"


async def test_a_result_that_the_disk_did_not_take_is_answered_once_it_does(bench: Any, disk: HeldDisk) -> None:
    peer, token = await bench.validator(), await bench.login()
    disk.let()
    job = (await bench.post_job(token)).json()["uuid"]
    await peer.receive()
    disk.errors = 1
    ended = asyncio.create_task(peer.status(job, "failed"))
    async with asyncio.timeout(5):
        while disk.asked < 3:  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0.001)
    assert await silent(ended)
    disk.let()
    assert (await ended)["errors"][0]["type"] == "job.integrity_error", "it is known, and will not be sent again"

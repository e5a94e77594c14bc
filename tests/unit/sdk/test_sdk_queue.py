"""A job that waits and is tried again, as the client sees it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeHordeFailure,
    ComputeHordeJob,
    ComputeHordeJobStatusEntry,
    QueuePlace,
)

FAST: dict[str, Any] = {"poll_first_s": 0.001, "poll_cap_s": 0.004}
DONE: dict[str, Any] = {"miner_response": {"docker_process_stdout": "", "docker_process_stderr": ""}}
GONE: dict[str, Any] = {
    "horde_failure_details": {"reported_by": "miner", "reason": "executor_disconnected", "message": "gone"}
}
WAITS: dict[str, Any] = {
    "attempt": {"number": 1, "of": 3},
    "queue": {"position": 3, "length": 7, "starts_in_s": 120.0, "time_limit_s": 600.0, "reason": "all are busy"},
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
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - looks at the fake's plain fields
            await asyncio.sleep(0)


async def test_a_job_that_was_found_waiting(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    assert (job.queue, job.attempt, job.attempts, job.attempts_made) == (None, 1, None, [])
    fake.advance(job.uuid, "queued", WAITS)
    await job.refresh_from_facilitator()
    assert (job.status, job.status.is_in_progress(), job.error) == ("queued", True, None)
    assert job.queue == QueuePlace(3, 7, 120.0)
    assert (job.attempt, job.attempts, job.attempts_made) == (1, 3, [])
    metadata = job.status_history[-1].metadata
    assert metadata is not None
    assert metadata.queue is not None
    assert metadata.queue.reason == "all are busy"


async def test_places_are_pushed_while_it_waits(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job, other = await submit(client), await submit(client)
    waiting = asyncio.gather(job.wait(), other.wait())
    await until(lambda: fake.open_streams == 1)
    fake.advance(job.uuid, "queued", WAITS)
    await until(lambda: job.queue == QueuePlace(3, 7, 120.0))
    looks = len(fake.requests)
    fake.place(job.uuid, position=2, length=6)
    await until(lambda: job.queue == QueuePlace(2, 6))
    fake.push_bytes(b"event: queue\ndata: {}\n\n")  # unreadable: the next one tells
    fake.push_bytes(b"event: news\ndata: {}\n\n")
    fake.place(job.uuid, position=1, length=6, starts_in_s=5)
    await until(lambda: job.queue == QueuePlace(1, 6, 5.0))
    assert len(fake.requests) == looks
    assert other.queue is None
    fake.advance(job.uuid, "accepted")
    await until(lambda: job.status == "accepted")
    assert job.queue is None
    for one in (job, other):
        fake.advance(one.uuid, "completed", DONE)
    await waiting
    assert [entry.status for entry in job.status_history] == ["sent", "queued", "accepted", "completed"]


async def test_places_do_not_move_the_streams_position(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    opened: list[str] = []
    fake.on_stream = opened.append
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: fake.open_streams == 1)
    fake.advance(job.uuid, "queued", WAITS)
    fake.place(job.uuid, position=1)
    await until(lambda: job.queue == QueuePlace(1))
    fake.drop()
    await until(lambda: len(opened) == 2)
    fake.advance(job.uuid, "completed", DONE)
    await waiting
    assert opened == ["", "2"]


async def test_a_waiting_job_whose_place_nobody_knows(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.advance(job.uuid, "queued")
    await job.refresh_from_facilitator()
    assert job.queue == QueuePlace()


async def test_the_place_that_came_with_the_status(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.advance(job.uuid, "queued", WAITS, queue=None)
    await job.refresh_from_facilitator()
    assert job.queue == QueuePlace(3, 7, 120.0)


async def test_every_new_place_is_told_once(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.advance(job.uuid, "queued", WAITS)
    await job.refresh_from_facilitator()
    places: list[QueuePlace] = []
    statuses: list[str] = []

    async def placed(moved: ComputeHordeJob, place: QueuePlace) -> None:
        assert moved is job
        places.append(place)

    def noted(_: ComputeHordeJob, entry: ComputeHordeJobStatusEntry) -> None:
        statuses.append(entry.status.value)

    waiting = asyncio.create_task(job.wait(status_callback=noted, queue_callback=placed))
    await until(lambda: fake.open_streams == 1 and places)
    for position in (2, 2, 1):
        fake.place(job.uuid, position=position)
    await until(lambda: len(places) >= 2 and places[-1].position == 1)
    fake.advance(job.uuid, "accepted", {"attempt": {"number": 1, "of": 3, "miner_hotkey": "5A"}})
    await until(lambda: job.status == "accepted")
    fake.advance(job.uuid, "completed", DONE)
    await waiting
    assert places[0] == QueuePlace(3, 7, 120.0)
    assert len(places) == len(set(places))
    assert statuses == ["sent", "queued", "accepted", "completed"]


async def test_an_exception_of_the_queue_callback_ends_the_waiting(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    fake.advance(job.uuid, "queued", WAITS)

    def refuse(_: ComputeHordeJob, place: QueuePlace) -> None:
        raise LookupError(place.position)

    with pytest.raises(LookupError, match="3"):
        await job.wait(timeout=5, queue_callback=refuse)


@pytest.mark.parametrize("pushes", [True, False])
async def test_attempts_are_seen_as_they_are_made(pushes: bool) -> None:
    fake = FakeFacilitator(pushes=pushes)
    async with fake.client(**FAST) as client:
        job = await submit(client)
        waiting = asyncio.create_task(job.wait())
        fake.advance(job.uuid, "accepted", {"attempt": {"number": 1, "of": 2, "miner_hotkey": "5A"}})
        await until(lambda: job.status == "accepted")
        assert (job.attempt, job.attempts) == (1, 2)
        fake.retry(job.uuid, GONE, 2, of=2)
        await until(lambda: job.status == "queued")
        assert (job.attempt, job.error, job.result) == (2, None, None)
        (first,) = job.attempts_made
        assert (first.number, first.miner_hotkey, first.outcome) == (1, "5A", "horde_failed")
        assert isinstance(first.error, ComputeHordeHordeFailure)
        assert (first.error.code, first.error.message) == ("executor_disconnected", "gone")
        fake.advance(job.uuid, "accepted", {"attempt": {"number": 2, "of": 2, "miner_hotkey": "5B"}})
        fake.advance(job.uuid, "completed", {**DONE, "attempt": {"number": 2, "of": 2}})
        await waiting
        assert [(one.miner_hotkey, one.outcome) for one in job.attempts_made] == [
            ("5A", "horde_failed"),
            ("5B", "completed"),
        ]
        assert (job.attempt, job.attempts, job.error) == (2, 2, None)


async def test_a_list_of_jobs_tells_the_attempt_without_a_history(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    fake.advance(job.uuid, "accepted", attempt=2, attempts=4)
    (found,) = await client.get_jobs()
    assert (found.attempt, found.attempts) == (2, 4)


async def test_a_notebook_shows_where_it_stands(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    assert "waits" not in job._repr_html_()
    fake.advance(job.uuid, "queued")
    await job.refresh_from_facilitator()
    assert "place not known" in job._repr_html_()
    fake.retry(job.uuid, GONE, 2)
    await job.refresh_from_facilitator()
    assert "1 of 1, starts in about 1 s" in job._repr_html_()
    assert "2 of 3" in job._repr_html_()

"""One stream for all who wait: many of them, replicas, silence, disorder, facilitators that learn."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from tests.unit.sdk.test_sdk_wire_creating import ORDER

from compute_horde.protocol.extensions import Extension
from compute_horde_sdk._internal.exceptions import ComputeHordeError
from compute_horde_sdk._internal.port import Order
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import ComputeHordeClient, ComputeHordeJob

EVENTS = "/api/v1/events/"
JOBS = "/api/v1/jobs/"
DONE = {
    "miner_response": {
        "docker_process_stdout": "",
        "docker_process_stderr": "",
        "artifacts": {},
        "upload_results": {},
    }
}


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def client(fake: FakeFacilitator) -> AsyncIterator[ComputeHordeClient]:
    async with fake.client() as made:
        yield made
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def submit(client: ComputeHordeClient) -> ComputeHordeJob:
    return ComputeHordeJob(client, await client._horde.create(Order(ORDER.spec, "validator")))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - looks at the fake's plain fields
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)


def requests(fake: FakeFacilitator) -> int:
    return len([one for one in fake.requests if one.method == "GET" and one.url.path.startswith(JOBS)])


async def test_a_thousand_waits_are_one_stream_and_a_few_looks(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    jobs = [await submit(client) for _ in range(1000)]
    waits = asyncio.gather(*(job.wait(timeout=60) for job in jobs))
    await until(lambda: requests(fake) == 7)
    assert fake.open_streams == 1
    fake.advance(jobs[0].uuid, "accepted")  # its position is where the next stream begins
    await until(lambda: jobs[0].status == "accepted")
    fake.drop()
    await until(lambda: requests(fake) >= 14)
    assert requests(fake) <= 21
    for job in jobs:
        fake.advance(job.uuid, "completed", DONE)
    await waits
    assert {job.status for job in jobs} == {"completed"}
    assert requests(fake) <= 21
    assert len(fake.sent("GET", EVENTS)) == 2
    assert fake.open_streams == 0


async def test_a_thousand_polls_are_a_few_requests() -> None:
    fake = FakeFacilitator(extensions=frozenset())
    async with fake.client(poll_first_s=0.05, poll_cap_s=0.05) as client:
        jobs = [await submit(client) for _ in range(1000)]
        waits = asyncio.gather(*(job.wait(timeout=60) for job in jobs))
        await asyncio.sleep(0.5)
        for job in jobs:
            fake.advance(job.uuid, "completed", DONE)
        began = time.monotonic()
        await waits
        assert not fake.sent("GET", EVENTS)
        assert requests(fake) < 20 + 20 * (time.monotonic() - began + 3)


async def test_an_event_ends_the_wait_at_once(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: requests(fake) == 1)
    began = time.monotonic()
    fake.advance(job.uuid, "completed", DONE)
    await waiting
    assert time.monotonic() - began < 0.1


async def test_silence_is_not_taken_for_peace(fake: FakeFacilitator) -> None:
    async with fake.client(stream_silence_s=0.02) as client:
        job = await submit(client)
        waiting = asyncio.create_task(job.wait())
        await until(lambda: len(fake.sent("GET", EVENTS)) >= 2 and fake.open_streams == 1)
        fake.advance(job.uuid, "completed", DONE)
        await waiting


async def test_comments_keep_a_stream_alive(fake: FakeFacilitator) -> None:
    async with fake.client(stream_silence_s=0.05) as client:
        job = await submit(client)
        waiting = asyncio.create_task(job.wait())
        await until(lambda: fake.open_streams == 1)
        for _ in range(10):
            await asyncio.sleep(0.015)
            fake.push_bytes(b": still here\n\n")
        assert len(fake.sent("GET", EVENTS)) == 1
        fake.advance(job.uuid, "completed", DONE)
        await waiting


async def test_a_position_named_without_an_event_is_kept(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    opened: list[str] = []
    fake.on_stream = opened.append
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: fake.open_streams == 1)
    fake.push_bytes(b"id: 1\n\nid: 99")
    fake.drop()
    await until(lambda: len(opened) == 2)
    fake.advance(job.uuid, "completed", DONE)
    await waiting
    assert opened == ["", "1"]


async def test_events_that_repeat_or_overtake_each_other(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job, other = await submit(client), await submit(client)
    waiting = asyncio.gather(job.wait(), other.wait())
    await until(lambda: requests(fake) == 1)
    fake._streams, kept = [], fake._streams
    for status in ("received", "accepted", "executor_ready"):
        fake.advance(job.uuid, status)
    fake._streams = kept
    for number in (5, 4, 5, 3, 3):
        fake.push_bytes(fake._frame(number))
    await until(lambda: job.status == "executor_ready" and requests(fake) >= 2)
    assert [entry.status for entry in job.status_history] == ["sent", "received", "accepted", "executor_ready"]
    for one in (job, other):
        fake.advance(one.uuid, "completed", DONE)
    await waiting


async def test_another_replica_whose_history_is_shorter(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    jobs = [await submit(client) for _ in range(3)]
    waits = asyncio.gather(*(job.wait() for job in jobs))
    await until(lambda: requests(fake) == 1)
    fake.advance(jobs[0].uuid, "accepted")
    await until(lambda: jobs[0].status == "accepted")
    fake._history.clear()  # the database was set up anew: ids begin at 1 again
    fake.drop()
    await until(lambda: len(fake.sent("GET", EVENTS)) == 2 and fake.open_streams == 1)
    for job in jobs:
        fake.advance(job.uuid, "completed", DONE)
    await waits
    assert {job.status for job in jobs} == {"completed"}


async def test_jumps_of_the_clock_do_no_harm(fake: FakeFacilitator) -> None:
    hours = itertools.cycle([0, 10**18, -(10**17)])
    async with fake.client(now_ns=lambda: 1_700_000_000_000_000_000 + next(hours)) as client:
        job = await submit(client)
        waiting = asyncio.create_task(job.wait(timeout=30))
        await until(lambda: requests(fake) == 1)
        fake.advance(job.uuid, "completed", DONE)
        await waiting


async def test_a_facilitator_that_learns_to_push_is_noticed() -> None:
    now = 0.0
    fake = FakeFacilitator()
    fake.fail(EVENTS, httpx.Response(404))
    async with fake.client(clock=lambda: now, poll_first_s=0.001, poll_cap_s=0.002) as client:
        job = await submit(client)
        waiting = asyncio.create_task(job.wait())
        await until(lambda: requests(fake) >= 3)
        assert len(fake.sent("GET", EVENTS)) == 1
        now = 301.0
        await until(lambda: fake.open_streams == 1)
        fake.advance(job.uuid, "completed", DONE)
        await waiting


async def test_an_upgrade_is_noticed_by_what_is_announced() -> None:
    fake = FakeFacilitator(extensions=frozenset())
    async with fake.client(poll_first_s=0.001, poll_cap_s=0.002) as client:
        job = await submit(client)
        waiting = asyncio.create_task(job.wait())
        await until(lambda: requests(fake) >= 3)
        assert not fake.sent("GET", EVENTS)
        fake.extensions = frozenset({Extension.EVENTS})
        await until(lambda: fake.open_streams == 1)
        fake.advance(job.uuid, "completed", DONE)
        await waiting


async def test_a_stream_that_is_refused_for_a_while(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    fake.fail(EVENTS, httpx.Response(429, headers={"Retry-After": "7"}), httpx.Response(503))
    job = await submit(client)
    waiting = asyncio.create_task(job.wait())
    await until(lambda: fake.open_streams == 1)
    assert fake.slept[0] == 7.0
    fake.advance(job.uuid, "completed", DONE)
    await waiting


@pytest.mark.parametrize("path", ["look", EVENTS, "/auth/nonce"])
async def test_a_timeout_is_kept_while_a_request_hangs(path: str) -> None:
    fake = FakeFacilitator()

    async def hang(request: httpx.Request) -> httpx.Response:
        if request.url.path == path or (path == "look" and request.url.path.startswith(JOBS)):
            await asyncio.sleep(60)
        return await fake.handle(request)

    async with fake.client() as helper:
        made = await submit(helper)
    async with fake.client(transport=httpx.MockTransport(hang)) as client:
        job = ComputeHordeJob(client, made._snapshot)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await job.wait(timeout=0.1)
        assert 0.1 <= time.monotonic() - began < 0.15
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_is_closed_refuses_new_looks(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    async with client._horde.subscribe(job.uuid) as news:
        await client._horde.aclose()
        with pytest.raises(ComputeHordeError, match="closed"):
            news.refreshing()


def test_waits_in_one_loop_after_another() -> None:
    fake = FakeFacilitator()
    client = fake.client()

    async def run() -> None:
        job = await submit(client)
        waiting = asyncio.create_task(job.wait())
        await until(lambda: fake.open_streams == 1)
        fake.advance(job.uuid, "completed", DONE)
        await waiting

    for _ in range(3):
        asyncio.run(run())
    assert fake.logins == 1

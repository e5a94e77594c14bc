"""Facilitators and miners that mean harm, and clients that are used roughly."""

import asyncio
import datetime as dt
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from compute_horde_sdk._internal.exceptions import (
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeResponseError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.models import ComputeHordeJobResult, ComputeHordeJobStatus
from compute_horde_sdk._internal.port import JobSnapshot
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec
from compute_horde_sdk._internal.specs.volumes import HTTPInputVolume, InlineInputVolume
from compute_horde_sdk._internal.wire.answers import retry_after_s
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wire.http import MAX_CALLS
from compute_horde_sdk._internal.wire.looking import Looker
from compute_horde_sdk._internal.wire.server_clock import date_of
from compute_horde_sdk._internal.wire.sse import SSEParser
from compute_horde_sdk._internal.wiring import Wiring

SPEC = ComputeHordeJobSpec("always_on.test", "SN0", "busybox")
Handle = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", ["/auth/login", "/api/v1/job-docker/", "/api/v1/jobs/", "/api/v1/events/"])
async def test_nothing_is_sent_to_where_a_redirect_leads_away(
    fake: FakeFacilitator, status: int, path: str
) -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "horde.test"
        if request.url.path == path:
            return httpx.Response(status, headers={"Location": f"http://evil.test{path}"})
        return await fake.handle(request)

    client = fake.client(transport=httpx.MockTransport(handle))
    if path == "/api/v1/events/":
        job = await client.create_job(SPEC)
        fake.advance(job.uuid, "completed")
        await job.wait()
    else:
        with pytest.raises(ComputeHordeError, match=r"redirects to another place, http://evil\.test"):
            await (client.get_jobs() if path == "/api/v1/jobs/" else client.create_job(SPEC))
    await client.aclose()


@pytest.mark.parametrize(
    ("url", "there", "followed"),
    [
        ("http://horde.test", "https://horde.test", True),
        ("http://horde.test", "http://horde.test/at", True),
        ("https://horde.test", "http://horde.test", False),
    ],
)
async def test_redirects_on_the_same_host(fake: FakeFacilitator, url: str, there: str, followed: bool) -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        target = httpx.URL(there)
        if request.url.scheme == target.scheme and request.url.path.startswith(target.path):
            return httpx.Response(200, json={"nonce": "n", "token": "t", "count": 0, "results": []})
        return httpx.Response(307, headers={"Location": there + request.url.path})

    async with fake.client(url, transport=httpx.MockTransport(handle)) as client:
        if followed:
            assert await client.get_jobs() == []
        else:
            with pytest.raises(ComputeHordeConnectionError, match="another place"):
                await client.get_jobs()


DATES = [
    "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Mon, 01 Jan 2020 99999999999999999999:00:00 GMT",
    "Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
]


@pytest.mark.parametrize("date", DATES)
async def test_dates_that_nobody_lives_in(fake: FakeFacilitator, date: str) -> None:
    answer = httpx.Response(429, headers={"Date": date, "Retry-After": date})
    assert date_of(answer) is None
    assert retry_after_s(answer) is None

    async def handle(request: httpx.Request) -> httpx.Response:
        response = await fake.handle(request)
        response.headers["Date"] = date
        return response

    async with fake.client(transport=httpx.MockTransport(handle)) as client:
        assert (await client.create_job(SPEC)).status is ComputeHordeJobStatus.SENT


@pytest.mark.parametrize("event_id", ["caf\xe9", "a\x01b", "x" * 100_000, "\u202e"])
def test_ids_that_no_header_can_hold_are_left_out(event_id: str) -> None:
    parser = SSEParser()
    assert [one.id for one in parser.feed(f"id: 7\ndata: a\n\nid: {event_id}\ndata: b\n\n".encode())] == ["7", "7"]
    assert parser.last_id == "7"


async def test_a_stream_goes_on_after_such_an_id(fake: FakeFacilitator) -> None:
    async with fake.client() as client:
        job = await client.create_job(SPEC)
        told = {"position": 1, "pieces": [{"stream": "stdout", "offset": 0, "text": "hi\n"}]}
        event = f"id: caf\xe9\nevent: logs\ndata: {json.dumps(told)}\n\n".encode()
        stream = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=event)
        fake.fail(f"/api/v1/jobs/{job.uuid}/logs/", stream)
        lines = job.logs(follow=True)
        assert (await anext(lines)).text == "hi"
        fake.advance(job.uuid, "completed")
        assert [line async for line in lines] == []


async def test_a_stream_that_asks_for_no_pause_gets_one(fake: FakeFacilitator) -> None:
    head = {"Content-Type": "text/event-stream"}
    fake.fail("/api/v1/events/", *[httpx.Response(200, headers=head, content=b"retry: 1\n\n") for _ in range(25)])
    async with fake.client() as client:
        job = await client.create_job(SPEC)
        waiting = asyncio.create_task(job.wait())
        while not fake.open_streams:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0)
        fake.advance(job.uuid, "completed")
        await waiting
    assert min(fake.slept) >= 0.2
    assert fake.slept[-1] > 2  # doubling, after some quick ones


async def test_a_refusal_that_never_ends(fake: FakeFacilitator) -> None:
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

    async with fake.client(request_s=0.01) as client:
        job = await client.create_job(SPEC)
        path = f"/api/v1/jobs/{job.uuid}/logs/"
        fake.fail(path, httpx.Response(403, stream=Endless()), httpx.Response(403, json={"detail": "no"}))
        async with asyncio.timeout(5):
            with pytest.raises(ComputeHordeError, match="refused"):
                await anext(job.logs(follow=True))


async def test_cancelling_never_makes_one_job_another(fake: FakeFacilitator) -> None:
    async with fake.client() as client:
        job, other = await client.create_job(SPEC), await client.create_job(SPEC)
        wrong = httpx.Response(200, json=fake.jobs[other.uuid].model_dump(mode="json"))
        fake.fail(f"/api/v1/jobs/{job.uuid}/cancel/", wrong)
        with pytest.raises(ComputeHordeResponseError, match="answered with job"):
            await job.cancel()
        assert job.uuid != other.uuid


async def test_what_is_tried_again_when_the_client_is_closed_ends(fake: FakeFacilitator) -> None:
    client = fake.client(retry_s=1e9)
    job = await client.create_job(SPEC)
    path = f"/api/v1/jobs/{job.uuid}/"
    fake.fail(path, *[httpx.ConnectError("no")] * 10_000)
    fake.fail(f"{path}logs/", *[httpx.ConnectError("no")] * 10_000)
    lines = job.logs(follow=True)
    tasks = [asyncio.ensure_future(work) for work in (job.wait(), anext(lines), client.get_job(job.uuid))]
    while len(fake.sent("GET", path)) < 5 or len(fake.sent("GET", f"{path}logs/")) < 5:  # noqa: ASYNC110 - the fake has no event
        await asyncio.sleep(0)
    horde = client._horde
    await client.aclose()
    for task in tasks:
        with pytest.raises(ComputeHordeConnectionError, match="client was closed"):
            await asyncio.wait_for(task, 5)
    with pytest.raises(ComputeHordeConnectionError, match="client was closed"):
        await horde.fetch(job.uuid)
    assert fake.faults.pop(path)
    assert (await client.get_job(job.uuid)).uuid == job.uuid  # opens anew
    await client.aclose()


async def test_what_waits_its_turn_when_the_client_is_closed_ends(fake: FakeFacilitator) -> None:
    stuck, held = asyncio.Event(), 0

    async def handle(request: httpx.Request) -> httpx.Response:
        nonlocal held
        if request.url.path.endswith("/explanation/"):
            held += 1
            await stuck.wait()
        return await fake.handle(request)

    client = fake.client(transport=httpx.MockTransport(handle))
    job = await client.create_job(SPEC)
    calls = [asyncio.create_task(job.explain()) for _ in range(MAX_CALLS)]
    while held < MAX_CALLS:  # noqa: ASYNC110 - the fake has no event
        await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(work) for work in (client.get_job(job.uuid), client._horde.look(job.uuid))]
    await asyncio.sleep(0.01)
    await client.aclose()
    stuck.set()
    await asyncio.wait(calls)
    for task in waiting:
        with pytest.raises(ComputeHordeConnectionError, match="client was closed"):
            await asyncio.wait_for(task, 1)
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_look_ends_whatever_goes_wrong(fake: FakeFacilitator) -> None:
    async def broken(_: object) -> JobSnapshot:
        raise RuntimeError("a defect")

    async def none(_: object) -> list[JobSnapshot]:
        return []

    looker = Looker(broken, none, Wiring())
    looks = [asyncio.ensure_future(looker.look(name)) for name in ("one", "other")]
    for look in looks:
        with pytest.raises(RuntimeError, match="a defect"):
            await asyncio.wait_for(look, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_wait_in_a_loop_that_was_left_behind_harms_no_later_one(fake: FakeFacilitator) -> None:
    client = fake.client()

    async def begin() -> asyncio.Task[None]:
        job = await client.create_job(SPEC)
        task = asyncio.create_task(job.wait())
        while not fake.open_streams:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0)
        return task

    async def whole() -> None:
        job = await client.create_job(SPEC)
        waiting = asyncio.create_task(job.wait())
        for _ in range(50):
            await asyncio.sleep(0)
        fake.advance(job.uuid, "completed")
        await asyncio.wait_for(waiting, 5)
        await client.aclose()

    left = asyncio.new_event_loop()
    task = left.run_until_complete(begin())
    asyncio.run(whole())
    task.cancel()
    fake.drop()
    left.run_until_complete(asyncio.wait({task}))
    left.run_until_complete(left.shutdown_asyncgens())
    left.close()


async def test_more_seconds_than_a_float_holds(fake: FakeFacilitator) -> None:
    async with fake.client() as client:
        job = await client.create_job(SPEC)
        fake.advance(job.uuid, "completed")
        await job.wait(timeout=10**400)
        assert job.status is ComputeHordeJobStatus.COMPLETED


def test_many_artifacts_of_one_name(tmp_path: Path) -> None:
    result = ComputeHordeJobResult(artifacts={f"/artifacts/{number}/A.txt": b"" for number in range(5000)})
    began = time.process_time()
    saved = result.save_artifacts(tmp_path)
    assert time.process_time() - began < 3  # it was minutes
    assert len(set(saved)) == 5000
    assert saved[1].name == "A-2.txt"


@pytest.mark.parametrize("url", ["ftp://u:SECRET@h/p?sig=SECRET#SECRET", "http://u:SECRET@[h/p?sig=SECRET"])
def test_a_wrong_url_is_told_without_its_secrets(url: str) -> None:
    with pytest.raises(ComputeHordeValidationError, match="must be an http or https URL") as caught:
        HTTPInputVolume(url)
    assert "SECRET" not in f"{caught.value!r}{caught.value}"


def test_a_folder_deeper_than_python_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        os.mkdir("a")
        os.chdir("a")
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(ComputeHordeValidationError, match="nested too deeply"):
            InlineInputVolume.from_path(tmp_path)
    finally:  # pytest could not delete it: it counts like Python does
        subprocess.run(["rm", "-rf", tmp_path / "a"], check=True)


def test_dates_of_our_time_are_read() -> None:
    answer = httpx.Response(200, headers={"Date": "Mon, 01 Dec 2025 10:00:00 GMT"})
    assert date_of(answer) == dt.datetime(2025, 12, 1, 10, tzinfo=dt.UTC)

"""A job's output, followed over connections that break off, fall silent and repeat themselves."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import pytest
from tests.unit.sdk.test_sdk_wire_creating import ORDER

from compute_horde.protocol.extensions import Extension
from compute_horde_sdk._internal.exceptions import ComputeHordeError, ComputeHordeNotFoundError
from compute_horde_sdk._internal.port import OutputPiece
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wire.session import Session

SSE = {"Content-Type": "text/event-stream"}


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def horde(fake: FakeFacilitator) -> AsyncIterator[Session]:
    made = fake.horde(stream_silence_s=5.0)
    yield made
    await made.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def job(horde: Session) -> str:
    return (await horde.create(ORDER)).uuid


def path(job: str) -> str:
    return f"/api/v1/jobs/{job}/logs/"


async def all_of(horde: Session, job: str) -> list[OutputPiece]:
    async with asyncio.timeout(5):
        return [piece async for piece in horde.output(job)]


def logs(position: int, *pieces: tuple[str, int, str]) -> str:
    told = [{"stream": stream, "offset": offset, "text": text} for stream, offset, text in pieces]
    return f"id: {position}\nevent: logs\ndata: {json.dumps({'position': position, 'pieces': told})}\n\n"


def stream(text: str) -> httpx.Response:
    return httpx.Response(200, headers=SSE, text=text)


END = 'event: end\ndata: {"reason": "ended"}\n\n'


async def test_output_comes_as_it_is_printed(fake: FakeFacilitator, horde: Session, job: str) -> None:
    fake.print(job, "stdout", "before")
    async with aclosing(horde.output(job)) as output:
        assert await anext(output) == OutputPiece("stdout", 0, "before")
        fake.print(job, "stderr", "é")
        assert await anext(output) == OutputPiece("stderr", 0, "é")
        fake.print(job, "stdout", " after")
        fake.advance(job, "completed")
        assert [piece async for piece in output] == [OutputPiece("stdout", 6, " after")]


async def test_a_broken_connection_is_made_good(fake: FakeFacilitator, horde: Session, job: str) -> None:
    fake.print(job, "stdout", "a")
    output = horde.output(job)
    assert (await anext(output)).text == "a"
    fake.output_of(job).drop()
    fake.fail(path(job), httpx.ConnectError("no"), httpx.Response(503), httpx.ReadError("cut off"))
    following = asyncio.ensure_future(anext(output))
    await asyncio.sleep(0.001)
    fake.print(job, "stdout", "b")
    assert await following == OutputPiece("stdout", 1, "b")
    fake.advance(job, "failed")
    assert [piece async for piece in output] == []
    assert fake.sent("GET", path(job))[-1].headers["Last-Event-ID"] == "1"


async def test_nothing_is_told_twice(fake: FakeFacilitator, horde: Session, job: str) -> None:
    fake.fail(
        path(job),
        stream(logs(1, ("stdout", 0, "abc"))),
        stream(logs(1, ("stdout", 0, "abc"), ("stderr", 0, "x")) + logs(2, ("stdout", 2, "cde"))),
        stream(logs(3, ("stdout", 3, "de"), ("stdout", 9, "later")) + END),
    )
    assert await all_of(horde, job) == [
        OutputPiece("stdout", 0, "abc"),
        OutputPiece("stderr", 0, "x"),
        OutputPiece("stdout", 3, "de"),
        OutputPiece("stdout", 9, "later"),
    ]


async def test_a_position_that_is_refused_is_begun_anew(fake: FakeFacilitator, horde: Session, job: str) -> None:
    fake.fail(
        path(job),
        stream(logs(7, ("stdout", 0, "ab"))),
        httpx.Response(400, json={"Last-Event-ID": ["no such position"]}),
        stream(logs(3, ("stdout", 0, "abc")) + END),
    )
    assert "".join(piece.text for piece in await all_of(horde, job)) == "abc"
    asked = [request.headers.get("Last-Event-ID") for request in fake.sent("GET", path(job))]
    assert asked == [None, "7", None]


async def test_a_silent_connection_is_given_up(fake: FakeFacilitator) -> None:
    horde = fake.horde(stream_silence_s=0.01)
    job = (await horde.create(ORDER)).uuid
    following = asyncio.create_task(all_of(horde, job))
    await asyncio.sleep(0.05)
    assert len(fake.sent("GET", path(job))) > 1
    fake.print(job, "stdout", "x")
    fake.advance(job, "completed")
    assert [piece.text for piece in await following] in (["x"], [])
    await horde.aclose()


@pytest.mark.parametrize("status", [405, 406, 410, 501])
async def test_where_there_is_no_stream(status: int, fake: FakeFacilitator, horde: Session, job: str) -> None:
    fake.fail(path(job), httpx.Response(status))
    assert await all_of(horde, job) == []


async def test_a_facilitator_that_does_not_know_logs(fake: FakeFacilitator) -> None:
    fake.extensions -= {Extension.LOGS}
    horde = fake.horde()
    job = (await horde.create(ORDER)).uuid
    assert await all_of(horde, job) == []
    assert not fake.sent("GET", path(job))
    await horde.aclose()


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (httpx.Response(429, json={"detail": "too many"}), "rate_limited"),
        (httpx.Response(429, headers={"Retry-After": "3600"}), "rate_limited"),
        (httpx.Response(503), "facilitator_failed"),
        (httpx.Response(200, html="<p>log in"), "malformed_response"),
        (stream("event: logs\ndata: {broken\n\n"), "malformed_response"),
        (stream(": only a comment\n\n"), "connection_failed"),
        (httpx.Response(403), "authentication_failed"),
        (httpx.Response(400, json={"Last-Event-ID": ["no"]}), "invalid_argument"),
    ],
)
async def test_a_stream_that_keeps_failing(
    response: httpx.Response, code: str, fake: FakeFacilitator, horde: Session, job: str
) -> None:
    fake.fail(path(job), *itertools.repeat(response, 50))
    with pytest.raises(ComputeHordeError) as caught:
        await all_of(horde, job)
    assert caught.value.code == code
    assert sum(fake.slept) <= 25


async def test_a_job_that_is_not_there(fake: FakeFacilitator, horde: Session) -> None:
    await horde.authenticate()
    with pytest.raises(ComputeHordeNotFoundError):
        await all_of(horde, "11111111-1111-4111-8111-111111111111")


async def test_too_many_followers_for_a_while(fake: FakeFacilitator, horde: Session, job: str) -> None:
    fake.fail(path(job), httpx.Response(429, headers={"Retry-After": "2"}), stream(END))
    assert await all_of(horde, job) == []
    assert fake.slept == [2.0]


async def test_streams_that_live_long_never_use_the_patience_up(fake: FakeFacilitator) -> None:
    ticks = itertools.count(step=10.0)
    horde = fake.horde(clock=lambda: next(ticks), retry_s=1e9)
    job = (await horde.create(ORDER)).uuid
    fake.fail(path(job), *[stream(": nothing\n\n")] * 50, stream(END))
    assert await all_of(horde, job) == []
    assert set(fake.slept) == {0.2}
    await horde.aclose()


async def test_a_follower_who_leaves_takes_the_connection_along(
    fake: FakeFacilitator, horde: Session, job: str
) -> None:
    fake.print(job, "stdout", "a")
    async with aclosing(horde.output(job)) as output:
        await anext(output)
    assert not fake.output_of(job).followers
    for _ in range(20):
        await asyncio.sleep(0)  # httpx leaves its generators to the loop

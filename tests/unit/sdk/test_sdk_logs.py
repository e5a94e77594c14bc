"""``job.logs``: whole lines from pieces cut anywhere, live and from the result."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_horde.protocol.extensions import Extension
from compute_horde_sdk._internal.lines import LEFT_OUT, MAX_LINE_CHARS, RESULT_HALF_CHARS, LineSplitter
from compute_horde_sdk._internal.logs import job_lines
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import ComputeHordeClient, ComputeHordeJob, ComputeHordeUnsupportedError, LogLine

FAST: dict[str, Any] = {"poll_first_s": 0.001, "poll_cap_s": 0.004}


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


def complete(fake: FakeFacilitator, job: ComputeHordeJob, stdout: str = "", stderr: str = "") -> None:
    response = {"docker_process_stdout": stdout, "docker_process_stderr": stderr}
    fake.advance(job.uuid, "completed", {"miner_response": response}, stdout=stdout, stderr=stderr)


def lines_of(text: str, *pieces: tuple[int, str], whole: str = "") -> list[str]:
    splitter = LineSplitter("stdout")
    found = [line for offset, piece in ((0, text), *pieces) for line in splitter.feed(offset, piece)]
    return [line.text for line in (*found, *splitter.end(whole))]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\n\nb\n", ["a", "", "b"]),
        ("a\r\nb\r\n\r\n", ["a", "b", ""]),
        ("10%\r20%\r100%\ndone", ["10%", "20%", "100%", "done"]),
        ("a\u2028b\x0bc\n", ["a\u2028b\x0bc"]),
        ("x" * (MAX_LINE_CHARS + 1) + "\ny", ["x" * MAX_LINE_CHARS, "x", "y"]),
        ("x" * (2 * MAX_LINE_CHARS + 1), ["x" * MAX_LINE_CHARS, "x" * MAX_LINE_CHARS, "x"]),
    ],
)
def test_lines(text: str, lines: list[str]) -> None:
    assert lines_of(text) == lines


@given(st.lists(st.sampled_from(["a", "\n", "\r", "\r\n", "bc", ""])))
def test_it_does_not_matter_where_pieces_are_cut(pieces: list[str]) -> None:
    whole = "".join(pieces)
    assert lines_of("", *((sum(map(len, pieces[:n])), piece) for n, piece in enumerate(pieces))) == lines_of(whole)


@given(st.text(alphabet="ab\r\n"), st.integers(0, 30))
def test_the_result_completes_what_was_seen(whole: str, seen: int) -> None:
    assert lines_of(whole[:seen], whole=whole) == lines_of(whole)


def test_what_comes_twice_is_skipped_and_what_is_missing_is_told() -> None:
    splitter = LineSplitter("stderr")
    assert list(splitter.feed(0, "ab\nc")) == [LogLine("stderr", "ab")]
    assert list(splitter.feed(1, "b\ncd")) == []
    assert list(splitter.feed(10, "x\n")) == [
        LogLine("stderr", "cd"),
        LogLine("stderr", "[5 characters of output were not kept]", gap=True),
        LogLine("stderr", "x"),
    ]
    assert next(iter(splitter.feed(20, "\n"))).gap
    assert list(splitter.end("short")) == []


def shortened(text: str) -> str:
    return text[:RESULT_HALF_CHARS] + LEFT_OUT + text[-RESULT_HALF_CHARS:]


def test_a_shortened_result_is_joined_to_what_was_seen() -> None:
    text = "".join(f"line {number}\n" for number in range(120_000))
    lines = text.splitlines()
    assert len(text) > 2 * RESULT_HALF_CHARS
    assert lines_of(text, whole=shortened(text)) == lines
    assert lines_of(text[:-1000], whole=shortened(text)) == lines
    for seen in ("", text[:1000], text[: RESULT_HALF_CHARS + 10]):
        found = lines_of(seen, whole=shortened(text))
        assert "[characters of output were not kept]" in found
        assert (found[0], found[-1]) == (lines[0], lines[-1])


async def test_an_ended_job_has_the_lines_of_its_result(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    complete(fake, job, "a\nb", "c\n")
    await job.wait()
    expected = [LogLine("stdout", "a"), LogLine("stdout", "b"), LogLine("stderr", "c")]
    assert [line async for line in job.logs()] == expected
    assert [line async for line in job.logs(follow=True)] == expected
    assert not any("logs" in request.url.path for request in fake.requests)


async def test_following_shows_lines_as_they_come_and_ends_complete(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    lines = job.logs(follow=True)
    fake.print(job.uuid, "stdout", "one\ntw")
    fake.print(job.uuid, "stderr", "warning\n")
    assert await anext(lines) == LogLine("stdout", "one")
    assert await anext(lines) == LogLine("stderr", "warning")
    fake.print(job.uuid, "stdout", "o\n")
    assert await anext(lines) == LogLine("stdout", "two")
    complete(fake, job, "one\ntwo\nthree", "warning\nlate")
    assert [line async for line in lines] == [LogLine("stdout", "three"), LogLine("stderr", "late")]
    assert job.status.is_successful()


async def test_where_nothing_can_be_streamed_following_waits_for_the_end(fake: FakeFacilitator) -> None:
    fake.extensions = frozenset()
    async with fake.client(**FAST) as client:
        job = await submit(client)

        async def read() -> list[LogLine]:
            return [line async for line in job.logs(follow=True)]

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.02)
        assert not reading.done()
        complete(fake, job, "a\n")
        assert await reading == [LogLine("stdout", "a")]


GONE: dict[str, Any] = {
    "horde_failure_details": {"reported_by": "miner", "reason": "executor_disconnected", "message": "gone"}
}


def accepted(fake: FakeFacilitator, job: ComputeHordeJob, number: int) -> None:
    fake.advance(job.uuid, "accepted", {"attempt": {"number": number, "of": 3, "miner_hotkey": f"5M{number}"}})


async def test_the_next_attempts_output_is_read_from_its_beginning(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    lines = job.logs(follow=True)
    accepted(fake, job, 1)
    fake.print(job.uuid, "stdout", "first, and long\nunfini")
    assert await anext(lines) == LogLine("stdout", "first, and long")
    fake.retry(job.uuid, GONE, 2)  # the stream of the first one hangs: its miner is gone
    pending = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0.02)
    assert not pending.done()
    accepted(fake, job, 2)
    fake.print(job.uuid, "stdout", "anew\n")
    assert await pending == LogLine("stdout", "unfini")
    assert await anext(lines) == LogLine("stdout", "anew", attempt=2)
    complete(fake, job, "anew\nend")
    assert [line async for line in lines] == [LogLine("stdout", "end", attempt=2)]
    assert [line.attempt async for line in job.logs()] == [2, 2]


async def test_an_attempt_whose_output_was_over_before_it_failed(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    lines = job.logs(follow=True)
    accepted(fake, job, 1)
    fake.print(job.uuid, "stderr", "one\n")
    fake.output_of(job.uuid).end()
    assert await anext(lines) == LogLine("stderr", "one")
    pending = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0.02)
    fake.retry(job.uuid, GONE, 2)
    accepted(fake, job, 2)
    fake.print(job.uuid, "stderr", "two\n")
    assert await pending == LogLine("stderr", "two", attempt=2)
    complete(fake, job, "", "two\n")
    assert [line async for line in lines] == []


async def test_another_attempt_begins_while_the_reader_is_busy(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    lines = job.logs(follow=True)
    accepted(fake, job, 1)
    fake.print(job.uuid, "stdout", "one\nunfini")
    assert await anext(lines) == LogLine("stdout", "one")
    fake.retry(job.uuid, GONE, 2)
    accepted(fake, job, 2)
    async with asyncio.timeout(5):
        while job.attempt != 2:  # noqa: ASYNC110 - a plain field
            await asyncio.sleep(0)
    fake.print(job.uuid, "stdout", "anew\n")
    assert [await anext(lines), await anext(lines)] == [
        LogLine("stdout", "unfini"),
        LogLine("stdout", "anew", attempt=2),
    ]
    complete(fake, job, "anew\n")
    assert [line async for line in lines] == []


async def test_a_job_that_ends_in_another_attempt_while_the_reader_is_busy(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    lines = job.logs(follow=True)
    accepted(fake, job, 1)
    fake.print(job.uuid, "stdout", "one\nunfini")
    assert await anext(lines) == LogLine("stdout", "one")
    fake.retry(job.uuid, GONE, 2)
    accepted(fake, job, 2)
    complete(fake, job, "anew\n")
    await job.wait()
    await asyncio.sleep(0.05)
    rest = [line async for line in lines]
    assert rest == [LogLine("stdout", "unfini"), LogLine("stdout", "anew", attempt=2)]


@pytest.mark.parametrize("offered", [{Extension.EVENTS}, set()])
async def test_an_attempt_of_which_only_the_end_is_heard(
    fake: FakeFacilitator, client: ComputeHordeClient, offered: set[Extension]
) -> None:
    fake.extensions = frozenset(offered)
    job = await submit(client)

    async def read() -> list[LogLine]:
        return [line async for line in job.logs(follow=True)]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    fake.retry(job.uuid, GONE, 2)
    done = {"docker_process_stdout": "late\n", "docker_process_stderr": ""}
    fake.advance(job.uuid, "completed", {"miner_response": done, "attempt": {"number": 2, "of": 3}})
    assert await reading == [LogLine("stdout", "late", attempt=2)]


async def test_what_there_is_by_now(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.print(job.uuid, "stdout", "one\ntw")
    found = [line async for line in job_lines(job, follow=False, quiet_s=0.05)]
    assert found == [LogLine("stdout", "one"), LogLine("stdout", "tw")]
    assert job.status.is_in_progress()
    complete(fake, job, "one\ntwo")
    assert [line.text async for line in job.logs()] == ["one", "two"]  # looks at the job anew


async def test_leaving_and_cancelling_leak_nothing(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.print(job.uuid, "stdout", "one\n")
    async for line in job.logs(follow=True):
        assert line.text == "one"
        break

    async def read() -> None:
        async for line in job.logs(follow=True):
            assert line.text == "one"

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_timeout_around_the_reading_is_the_readers_own(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            _ = [line async for line in job_lines(job, follow=False, quiet_s=60)]


async def test_a_timeout_of_the_source_is_not_silence() -> None:
    from compute_horde_sdk._internal.logs import _next
    from compute_horde_sdk._internal.port import OutputPiece

    async def broken() -> AsyncIterator[OutputPiece]:
        raise TimeoutError("socket")
        yield  # type: ignore[unreachable]  # makes it a generator

    with pytest.raises(TimeoutError, match="socket"):
        await _next(broken(), asyncio.timeout(5))


async def test_cancelling(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    await job.cancel()
    await job.cancel()
    assert job.status.is_in_progress()
    failure = {
        "reason": "unknown",
        "stage": "execution",
        "message": "cancelled",
        "docker_process_stdout": "so far",
    }
    problem = {"code": "cancelled", "message": "cancelled", "stage": "execution", "fault": "user"}
    fake.advance(job.uuid, "cancelled", {"job_failure_details": {**failure, "context": {"problem": problem}}})
    await job.wait()
    assert job.status == "cancelled"
    assert job.status.is_failed()
    assert job.error is not None
    assert job.error.code == "cancelled"
    assert job.result is not None
    assert job.result.stdout == "so far"
    path = f"/api/v1/jobs/{job.uuid}/cancel/"
    assert len(fake.sent("POST", path)) == 2
    await job.cancel()
    assert len(fake.sent("POST", path)) == 2


async def test_a_facilitator_that_cannot_cancel(fake: FakeFacilitator) -> None:
    fake.extensions -= {Extension.CANCEL}
    async with fake.client() as client:
        job = await submit(client)
        with pytest.raises(ComputeHordeUnsupportedError, match="cannot cancel"):
            await job.cancel()


def test_a_line_is_shown_as_what_it_is() -> None:
    stream: Literal["stdout"] = "stdout"
    assert repr(LogLine(stream, "x")) == "LogLine(stream='stdout', text='x', gap=False, attempt=1)"

"""What a job prints, for those that follow it: the store, the rate, the requests. No container, no socket."""

import asyncio
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_horde.executor.follow import Allowance, Follower
from compute_horde.executor.printed import Printed
from compute_horde.executor.runtime import STDERR, STDOUT
from compute_horde.protocol.control import (
    LOGS_PIECE_CHARS,
    MAX_LOGS_FRAME_BYTES,
    MAX_LOGS_WAITING,
    LogPiece,
    V0JobLogsRequest,
    V0JobLogsResponse,
)

JOB = "00000000-0000-4000-8000-000000000001"


def request(position: int = 0, name: str = "a") -> V0JobLogsRequest:
    return V0JobLogsRequest(job_uuid=JOB, request_id=name, position=position)


def everything(printed: Printed, limit: int = LOGS_PIECE_CHARS) -> list[LogPiece]:
    """All pieces from the beginning, one answer after another."""
    position, found = 0, list[LogPiece]()
    while position < printed.total:
        pieces, position = printed.read(position, limit)
        found += pieces
    return found


def text_of(pieces: list[LogPiece], stream: str) -> str:
    """The text of one stream, which must have no gap."""
    text = ""
    for piece in pieces:
        if piece.stream == stream:
            assert piece.offset == len(text)
            text += piece.text
    return text


# the store


async def test_both_streams_in_their_order() -> None:
    printed = Printed()
    for stream, data in ((STDOUT, b"a"), (STDOUT, b"b"), (STDERR, b"c"), (STDOUT, b"d")):
        printed.feed(stream, data)
    pieces, position = printed.read(0, 1000)
    assert [(p.stream, p.offset, p.text) for p in pieces] == [
        ("stdout", 0, "ab"),
        ("stderr", 0, "c"),
        ("stdout", 2, "d"),
    ]
    assert position == 4
    assert printed.read(position, 1000) == ([], 4)
    assert printed.read(99, 1000) == ([], 4), "a position of another life is put right"
    assert [p.text for p in printed.read(1, 1000)[0]] == ["b", "c", "d"]


@given(
    chunks=st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=6)), max_size=40),
    more=st.text(max_size=20),
    limit=st.integers(65, 200),
)
def test_any_bytes_in_any_chunks_are_the_text_of_the_result(
    chunks: list[tuple[int, bytes]], more: str, limit: int
) -> None:
    async def check() -> None:
        printed = Printed()
        split = [(STDOUT, bytes([byte])) for byte in more.encode()]
        for stream, data in (*chunks, *split):
            printed.feed(stream, data)
        printed.end()
        printed.feed(STDOUT, b"too late")
        pieces = everything(printed, limit)
        for number, name in ((STDOUT, "stdout"), (STDERR, "stderr")):
            whole = b"".join(data for stream, data in (*chunks, *split) if stream == number)
            assert text_of(pieces, name) == whole.decode("utf-8", "replace")

    asyncio.run(check())


async def test_old_text_is_dropped_which_shows_as_a_gap() -> None:
    printed = Printed(kept_bytes=100_000)
    for number in range(40_000):
        printed.feed(STDOUT, f"{number:09}\n".encode())
    pieces, position = printed.read(0, 10_000)
    assert pieces[0].offset > 200_000
    assert pieces[0].text.startswith(f"{pieces[0].offset // 10:09}"[pieces[0].offset % 10 :])
    assert position == pieces[0].offset + len(pieces[0].text)
    kept = sum(len(piece.text) for piece in everything(printed))
    assert 50_000 < kept <= 100_000


@pytest.mark.parametrize("data", [b"x", "\N{PILE OF POO}".encode()])
async def test_a_million_tiny_writes_of_alternating_streams_stay_bounded(data: bytes) -> None:
    printed = Printed(kept_bytes=200_000)
    for number in range(100_000):
        printed.feed(number % 2 + 1, data)
    pieces = everything(printed)
    assert sum(sys.getsizeof(piece.text) for piece in pieces) < 200_000
    assert printed.total == 100_000


@pytest.mark.parametrize("data", [b"\0" * 200_000, "\N{PILE OF POO}".encode() * 70_000, b"ab"])
async def test_an_answer_fits_into_its_frame(data: bytes) -> None:
    printed = Printed()
    for number in range(1 if len(data) > 2 else 20_000):
        printed.feed(number % 2 + 1, data)
    pieces, position = printed.read(0, LOGS_PIECE_CHARS)
    assert sum(len(piece.text) for piece in pieces) <= LOGS_PIECE_CHARS
    answer = V0JobLogsResponse(job_uuid=JOB, request_id="a" * 64, state="more", position=position, pieces=pieces)
    assert len(answer.to_frame().encode()) < MAX_LOGS_FRAME_BYTES


# the rate


def test_an_allowance_is_overdrawn_and_paid_back() -> None:
    now = 0.0
    allowance = Allowance(100, lambda: now)
    allowance.spend(100)
    assert allowance.delay() == 0
    allowance.spend(50)
    assert allowance.delay() == pytest.approx(0.5)
    now = 0.4
    assert allowance.delay() == pytest.approx(0.1)
    now = 1000.0
    assert allowance.delay() == 0
    allowance.spend(200)
    assert allowance.delay() == pytest.approx(1), "no more is saved up than a second's worth"


# the requests


class Case:
    """A follower whose answers are kept."""

    def __init__(self, *, hold_s: float = 1000, gather_s: float = 0, allowance: Allowance | None = None) -> None:
        self.printed, self.answers = Printed(), list[V0JobLogsResponse]()
        self.follower = Follower(self.printed, self.answers.append, allowance, hold_s=hold_s, gather_s=gather_s)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def shown(self) -> list[tuple[str, str, int, str]]:
        return [
            (one.request_id, one.state, one.position, "".join(piece.text for piece in one.pieces))
            for one in self.answers
        ]


async def test_output_that_is_there_is_answered_and_other_requests_wait() -> None:
    case = Case()
    case.printed.feed(STDOUT, b"abc")
    case.follower.ask(request(1))
    case.follower.ask(request(3, "b"))
    await case.settle()
    assert case.shown() == [("a", "more", 3, "bc")]
    case.printed.feed(STDERR, b"d")
    await case.settle()
    assert case.shown()[1:] == [("b", "more", 4, "d")]
    case.follower.end()


async def test_small_writes_are_gathered() -> None:
    case = Case(gather_s=0.01)
    case.follower.ask(request())
    for letter in b"xyz":
        case.printed.feed(STDOUT, bytes([letter]))
        await case.settle()
    assert case.answers == []
    await asyncio.sleep(0.02)
    assert case.shown() == [("a", "more", 3, "xyz")]


async def test_nothing_printed_is_answered_with_nothing_in_the_end() -> None:
    case = Case(hold_s=0)
    case.follower.ask(request())
    await case.settle()
    assert case.shown() == [("a", "more", 0, "")]


async def test_the_end_of_the_output_comes_with_the_rest() -> None:
    case = Case()
    case.follower.ask(request())
    case.printed.feed(STDOUT, b"rest")
    case.printed.end()
    await case.settle()
    assert case.shown() == [("a", "ended", 4, "rest")]
    case.follower.ask(request(4, "b"))
    await case.settle()
    assert case.shown()[1:] == [("b", "ended", 4, "")]


async def test_more_than_one_answer_holds_is_not_the_end() -> None:
    case = Case()
    case.printed.feed(STDOUT, b"x" * (LOGS_PIECE_CHARS + 100))
    case.printed.end()
    case.follower.ask(request())
    await case.settle()
    assert case.answers[0].state == "more"
    assert case.answers[0].position <= LOGS_PIECE_CHARS
    case.follower.ask(request(case.answers[0].position))
    await case.settle()
    assert (case.answers[1].state, case.answers[1].position) == ("ended", LOGS_PIECE_CHARS + 100)


async def test_when_the_job_ends_all_that_wait_are_answered_at_once() -> None:
    case = Case(gather_s=1000)
    case.follower.ask(request())
    case.follower.ask(request(0, "b"))
    case.printed.feed(STDOUT, b"tail")
    await case.settle()
    case.follower.end()
    assert case.shown() == [("a", "ended", 4, "tail"), ("b", "ended", 4, "tail")]
    case.follower.ask(request(4, "c"))
    assert case.shown()[2:] == [("c", "ended", 4, "")]
    case.follower.end()
    await case.settle()
    assert len(case.answers) == 3


async def test_too_many_requests_send_the_oldest_away() -> None:
    case = Case()
    for number in range(MAX_LOGS_WAITING + 1):
        case.follower.ask(request(7, str(number)))
    assert case.shown() == [("0", "more", 0, "")]
    case.follower.end()
    assert len(case.answers) == MAX_LOGS_WAITING + 1


async def test_asked_again_under_the_same_name_it_is_answered_once() -> None:
    case = Case()
    case.follower.ask(request())
    case.follower.ask(request())
    case.printed.feed(STDOUT, b"x")
    await case.settle()
    assert case.shown() == [("a", "more", 1, "x")]


async def test_a_lost_connection_takes_its_requests_with_it() -> None:
    case = Case()
    case.follower.ask(request())
    await case.settle()
    case.follower.drop()
    case.printed.feed(STDOUT, b"x")
    case.follower.end()
    await case.settle()
    assert case.answers == []


async def test_who_follows_gets_so_many_bytes_a_second() -> None:
    now = 0.0
    case = Case(allowance=Allowance(20_000, lambda: now))
    case.printed.feed(STDOUT, b"x" * 40_000)
    case.follower.ask(request())
    await case.settle()
    assert len(case.answers) == 1
    case.follower.ask(request(0, "b"))
    await case.settle()
    assert len(case.answers) == 1, "the first answer has cost a second's worth more than there was"
    case.follower.drop()
    now = 1.0
    case.follower.ask(request(0, "c"))
    await case.settle()
    assert [one.request_id for one in case.answers] == ["a", "c"]

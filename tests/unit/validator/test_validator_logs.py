"""Requests for a job's output, without sockets: who is asked, who is answered, what is bounded."""

import asyncio

import pytest

from compute_horde.protocol.control import (
    MAX_LOGS_WAITING,
    LogPiece,
    V0JobLogsRequest,
    V0JobLogsResponse,
    empty_answer,
)
from compute_horde.validator.answers import AnswerQueue
from compute_horde.validator.logs import LogDesk

JOB, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


class FakeLine:
    """A miner that takes requests unless it is deaf."""

    def __init__(self) -> None:
        self.asked: list[V0JobLogsRequest] = []
        self.deaf = False

    def ask_logs(self, request: V0JobLogsRequest) -> bool:
        if not self.deaf:
            self.asked.append(request)
        return not self.deaf


class Asker:
    """Keeps its answers."""

    def __init__(self) -> None:
        self.answers: list[V0JobLogsResponse] = []

    def __call__(self, request: V0JobLogsRequest, answer: V0JobLogsResponse) -> None:
        assert (request.job_uuid, request.request_id) == (answer.job_uuid, answer.request_id)
        self.answers.append(answer)

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(answer.request_id, answer.state) for answer in self.answers]


def request(id_: str = "a", job: str = JOB, position: int = 7) -> V0JobLogsRequest:
    return V0JobLogsRequest(job_uuid=job, request_id=id_, position=position)


def response(id_: str = "a", job: str = JOB, text: str = "hi") -> V0JobLogsResponse:
    piece = LogPiece(stream="stdout", offset=0, text=text)
    return V0JobLogsResponse(job_uuid=job, request_id=id_, state="more", position=9, pieces=[piece])


@pytest.fixture
def line() -> FakeLine:
    return FakeLine()


@pytest.fixture
def desk(line: FakeLine) -> LogDesk:
    made = LogDesk()
    made.connect(JOB, line)
    return made


@pytest.fixture
def asker() -> Asker:
    return Asker()


def test_a_request_goes_to_the_miner_and_its_answer_comes_back_unchanged_once(
    desk: LogDesk, line: FakeLine, asker: Asker
) -> None:
    desk.ask(request(), asker)
    assert line.asked == [request()]
    for _ in range(2):
        desk.answer(response(), line)
    assert asker.answers == [response()]


def test_without_a_miner_the_answer_is_that_nobody_can_tell(desk: LogDesk, line: FakeLine, asker: Asker) -> None:
    desk.ask(request("a", OTHER), asker)
    line.deaf = True
    desk.ask(request("b"), asker)
    assert asker.states == [("a", "unavailable"), ("b", "unavailable")]
    assert asker.answers[0].position == 7


def test_what_was_not_asked_of_a_miner_is_dropped(desk: LogDesk, line: FakeLine, asker: Asker) -> None:
    desk.connect(OTHER, FakeLine())
    desk.ask(request(), asker)
    desk.answer(response("b"), line)
    desk.answer(response("a", OTHER), line)
    desk.answer(response("a"), FakeLine())  # another miner
    desk.answer(response("a", "nobody's"), line)
    assert asker.answers == []


def test_a_lost_miner_a_replaced_one_and_the_jobs_end_answer_what_waits(
    desk: LogDesk, line: FakeLine, asker: Asker
) -> None:
    desk.ask(request("a"), asker)
    desk.lost(JOB, FakeLine())  # a miner that was only tried
    assert asker.states == []
    desk.lost(JOB, line)
    desk.ask(request("b"), asker)
    desk.end(JOB)
    desk.end(JOB)
    desk.answer(response("b"), line)
    assert asker.states == [("a", "unavailable"), ("b", "ended")]


def test_the_oldest_of_too_many_requests_is_answered(desk: LogDesk, line: FakeLine, asker: Asker) -> None:
    for number in range(MAX_LOGS_WAITING + 2):
        desk.ask(request(f"{number}"), asker)
    assert asker.states == [("0", "unavailable"), ("1", "unavailable")]
    desk.answer(response("0"), line)
    desk.answer(response("2"), line)
    assert asker.states[2:] == [("2", "more")]


def test_a_repeated_request_is_answered_where_it_was_asked_last(
    desk: LogDesk, line: FakeLine, asker: Asker
) -> None:
    before = Asker()
    desk.ask(request(), before)
    desk.ask(request(), asker)
    desk.answer(response(), line)
    assert (before.states, asker.states) == ([], [("a", "more")])


# the way up


async def test_answers_leave_in_order_and_without_room_for_their_output_they_say_ask_again() -> None:
    size = len(response().to_frame())
    queue = AnswerQueue(max_bytes=size + 10, max_answers=3)
    for id_ in "abcd":
        queue.put(request(id_), response(id_))
    frames = [V0JobLogsResponse.model_validate_json(await queue.get()) for _ in range(3)]
    assert frames == [response("a"), empty_answer(request("b"), "more"), empty_answer(request("c"), "more")]
    assert frames[1].position == 7
    queue.put(request("e"), response("e"))
    assert V0JobLogsResponse.model_validate_json(await queue.get()) == response("e")


async def test_an_empty_queue_waits_for_the_next_answer() -> None:
    queue = AnswerQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(request(), response())
    assert V0JobLogsResponse.model_validate_json(await waiting) == response()

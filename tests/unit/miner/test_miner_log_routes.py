"""Requests for output and their answers on their way through the miner, without sockets or jobs."""

import asyncio

import pytest

from compute_horde.lifecycle.states import JobState
from compute_horde.miner import connection as connections
from compute_horde.miner.cancelling import as_cancelled, cancelled, is_cancelled
from compute_horde.miner.connection import Connection
from compute_horde.miner.logs import LogRoutes
from compute_horde.miner.testing import Stuck
from compute_horde.protocol.control import MAX_LOGS_WAITING, LogPiece, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.enums import HordeFailureReason, Participant, Stage
from compute_horde.protocol.validator_miner import V0HordeFailedRequest, V0JobFailedRequest
from compute_horde.transport.channel import ChannelClosed
from compute_horde.transport.memory import MemoryChannel, memory_pair

JOB = "00000000-0000-4000-8000-000000000001"


def request(name: str, position: int = 5) -> V0JobLogsRequest:
    return V0JobLogsRequest(job_uuid=JOB, request_id=name, position=position)


def response(name: str, text: str = "x") -> V0JobLogsResponse:
    pieces = [LogPiece(stream="stdout", offset=0, text=text)]
    return V0JobLogsResponse(job_uuid=JOB, request_id=name, state="more", position=6, pieces=pieces)


class Ear:
    """An asker that keeps what it is offered."""

    def __init__(self) -> None:
        self.heard: list[V0JobLogsResponse] = []

    def offer(self, response: V0JobLogsResponse) -> None:
        self.heard.append(response)

    def shown(self) -> list[tuple[str, str, int]]:
        return [(one.request_id, one.state, one.position) for one in self.heard]


def test_an_answer_goes_to_whoever_asked_and_only_once() -> None:
    routes, alice, bob = LogRoutes(), Ear(), Ear()
    assert routes.ask(request("a"), alice)
    assert not routes.ask(request("b"), bob)
    assert [routes.next(), routes.next(), routes.next()] == [request("a"), request("b"), None]
    for name in ("b", "a", "a", "unknown"):
        routes.answer(response(name))
    assert (alice.shown(), bob.shown()) == ([("a", "more", 6)], [("b", "more", 6)])
    assert routes.ask(request("c"), alice), "whoever passed requests on has stopped"


def test_asked_again_the_newer_asker_gets_the_answer() -> None:
    routes, old, new = LogRoutes(), Ear(), Ear()
    routes.ask(request("a"), old)
    routes.ask(request("a", 7), new)
    assert (routes.next(), routes.next()) == (request("a", 7), None)
    routes.answer(response("a"))
    assert (old.shown(), new.shown()) == ([], [("a", "more", 6)])


def test_too_many_requests_send_the_oldest_away() -> None:
    routes, ear = LogRoutes(), Ear()
    for number in range(MAX_LOGS_WAITING + 1):
        routes.ask(request(str(number)), ear)
    assert ear.shown() == [("0", "more", 5)]
    passed = [found.request_id for _ in range(MAX_LOGS_WAITING) if (found := routes.next())]
    assert passed == [str(number) for number in range(1, MAX_LOGS_WAITING + 1)]


def test_closing_tells_all_that_wait() -> None:
    routes, ear = LogRoutes(), Ear()
    routes.ask(request("a"), ear)
    routes.close("unavailable")
    routes.close("ended")
    routes.answer(response("a"))
    assert ear.shown() == [("a", "unavailable", 5)]
    assert routes.next() is None


# the validator's connection


async def read_all(channel: MemoryChannel) -> list[str]:
    frames = list[str]()
    try:
        while True:
            frames.append(await channel.receive())
    except ChannelClosed:
        return frames


async def test_stage_messages_overtake_output_on_a_slow_connection() -> None:
    near, far = memory_pair()
    stuck = Stuck(far)
    connection = Connection(stuck, "validator")
    writing = asyncio.create_task(connection.write())
    for name in ("a", "b"):
        connection.offer(response(name))
    await asyncio.sleep(0)
    connection.post("stage 1")
    connection.post("stage 2")
    stuck.go.set()
    heard = [await near.receive() for _ in range(4)]
    assert heard == [response("a").to_frame(), "stage 1", "stage 2", response("b").to_frame()]
    connection.finish()
    await writing


async def test_a_slow_connection_keeps_so_much_output_and_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_LOGS_CHARS", 1000)
    near, far = memory_pair()
    connection = Connection(far, "validator")
    for number in range(100):
        connection.offer(response(str(number), "x" * 100))
        connection.post(str(number))
    writing = asyncio.create_task(connection.write())
    heard = [await near.receive() for _ in range(100)]
    assert heard == [str(number) for number in range(100)]
    late = [await near.receive() for _ in range(3)]
    assert late == [response(str(number), "x" * 100).to_frame() for number in (97, 98, 99)]
    assert 3 * len(late[0]) <= 1000 < 4 * len(late[0])
    connection.finish()
    await writing
    connection.offer(response("gone"))
    assert await read_all(near) == []


# what the end of a cancelled job is called


@pytest.mark.parametrize(
    ("state", "stage"),
    [
        (JobState.ACCEPTED, Stage.EXECUTOR_STARTUP),
        (JobState.EXECUTOR_READY, Stage.VOLUME_DOWNLOAD),
        (JobState.VOLUMES_READY, Stage.EXECUTION),
        (JobState.EXECUTION_DONE, Stage.RESULT_UPLOAD),
        (JobState.COMPLETED, Stage.UNKNOWN),
    ],
)
def test_the_stage_is_where_it_was(state: JobState, stage: Stage) -> None:
    assert cancelled(state).stage is stage


def test_a_failure_of_a_cancelled_job_keeps_what_was_printed() -> None:
    failed = V0JobFailedRequest(
        job_uuid=JOB, message="exit code 143", docker_process_stdout="out", docker_process_exit_status=143
    )
    end = as_cancelled(failed, JobState.VOLUMES_READY)
    assert is_cancelled(end)
    assert (end.docker_process_stdout, end.docker_process_exit_status) == ("out", 143)
    assert end.message == "The job was cancelled. Its executor reported: exit code 143"
    assert as_cancelled(end, JobState.ACCEPTED) is end
    assert not is_cancelled(failed)


def test_a_horde_failure_of_a_cancelled_job_is_its_end() -> None:
    failed = V0HordeFailedRequest(
        job_uuid=JOB, reported_by=Participant.EXECUTOR, message="no", reason=HordeFailureReason.GENERIC_ERROR
    )
    assert is_cancelled(as_cancelled(failed, JobState.ACCEPTED))
    assert not is_cancelled(failed)

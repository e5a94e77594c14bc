"""GET /api/v1/jobs/{uuid}/logs/: a job's output while it runs, asked of its validator piece by piece."""

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest

from compute_horde.chain.port import Directory
from compute_horde.facilitator.errors import ApiError
from compute_horde.facilitator.seats import PER_JOB, PER_USER, Seats
from compute_horde.protocol.control import MAX_LOGS_FRAME_BYTES, V0JobLogsRequest

RESULT = {"miner_response": {"docker_process_stdout": "", "docker_process_stderr": ""}}
COMMENT = (b":", b"retry:")


class Reader:
    """A client's end of a stream."""

    def __init__(self, bench: Any, token: dict[str, str], uuid: str, position: int = 0) -> None:
        self._bench, self._uuid, self._position = bench, uuid, position
        self._session = bench.facilitator.login.session(token["Authorization"])

    async def __aenter__(self) -> "Reader":
        logs = self._bench.facilitator.logs
        seat = await logs.seat(self._uuid, self._session.hotkey)
        self.stream = logs.stream(self._session, self._uuid, self._position, seat)
        assert (await anext(self.stream)).startswith(b": connected\nretry: 500\n")
        self._task: asyncio.Task[Any] = asyncio.create_task(self._next())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.stream.aclose()

    async def _next(self) -> dict[str, Any]:
        while (text := await anext(self.stream)).startswith(COMMENT):
            pass
        fields = dict(line.split(": ", 1) for line in text.decode().strip().split("\n"))
        return {**fields, "data": json.loads(fields["data"])}

    async def next(self) -> dict[str, Any]:
        """The next event; meanwhile, and afterwards, the stream is being read."""
        found: dict[str, Any] = await asyncio.wait_for(self._task, 5)
        self._task = asyncio.create_task(self._next())
        return found

    async def end(self) -> str:
        found = await self.next()
        assert found["event"] == "end"
        with pytest.raises(StopAsyncIteration):
            await self._task
        return str(found["data"]["reason"])


async def running(bench: Any, peer: Any, *statuses: str) -> tuple[dict[str, str], str]:
    token = await bench.login()
    uuid = str((await bench.post_job(token)).json()["uuid"])
    await peer.receive()
    for status in statuses or ("received", "volumes_ready"):
        await peer.status(uuid, status)
    return token, uuid


async def asked(peer: Any, uuid: str, position: int = 0) -> V0JobLogsRequest:
    request = V0JobLogsRequest.model_validate(await peer.receive())
    assert (request.job_uuid, request.position) == (uuid, position)
    return request


def answer(request: V0JobLogsRequest, state: str, position: int = 0, text: str = "", **changes: Any) -> Any:
    pieces = [{"stream": "stdout", "offset": 0, "text": text}] if text else []
    return {
        "message_type": "V0JobLogsResponse",
        "job_uuid": request.job_uuid,
        "request_id": request.request_id,
        "state": state,
        "position": position,
        "pieces": pieces,
        **changes,
    }


async def test_output_is_asked_for_piece_by_piece_to_its_end(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        first = await asked(peer, uuid)
        await peer.send(answer(first, "more", 3, "a\nb"))
        event = await reader.next()
        assert (event["event"], event["id"]) == ("logs", "3")
        assert event["data"] == {"position": 3, "pieces": [{"stream": "stdout", "offset": 0, "text": "a\nb"}]}
        second = await asked(peer, uuid, 3)
        assert second.request_id != first.request_id
        await peer.send(answer(second, "more", 3))  # nothing came in time
        await peer.send(answer(await asked(peer, uuid, 3), "ended", 5, "c"))
        assert (await reader.next())["id"] == "5"
        assert await reader.end() == "ended"
    assert bench.facilitator.questions._open == {}


async def test_a_reader_resumes_behind_its_position(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid, 77):
        await asked(peer, uuid, 77)


async def test_nothing_is_asked_before_the_container_can_run(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer, "received")
    async with Reader(bench, token, uuid):
        await asyncio.sleep(0.12)
        await peer.status(uuid, "executor_ready")  # its answer is the first frame since
        await peer.send({"message_type": "V0JobStatusUpdate", "uuid": uuid, "status": "volumes_ready"})
        assert (await peer.receive())["status"] == "success"
        await asked(peer, uuid)


async def test_unavailable_is_asked_again_after_a_pause(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        for _ in range(4):
            await peer.send(answer(await asked(peer, uuid), "unavailable"))
        await peer.send(answer(await asked(peer, uuid), "more", 1, "x"))
        assert (await reader.next())["id"] == "1"


async def test_empty_answers_at_once_are_not_asked_for_without_end(bench: Any, ours: Any) -> None:
    bench.facilitator.logs.pace = replace(bench.facilitator.logs.pace, answer=9, pause=0.1, longest_pause=0.2)
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    questions = 0
    async with Reader(bench, token, uuid) as reader:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.4):
                while True:
                    await peer.send(answer(await asked(peer, uuid), "more"))
                    questions += 1
        assert questions <= 4
        await peer.send(answer(await asked(peer, uuid), "ended", 1, "x"))
        assert (await reader.next())["id"] == "1"


@pytest.mark.parametrize("position", [0, 3])
async def test_output_that_does_not_lead_on_is_not_sent(bench: Any, ours: Any, position: int) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        await peer.send(answer(await asked(peer, uuid), "more", 3, "abc"))
        assert (await reader.next())["id"] == "3"
        await peer.send(answer(await asked(peer, uuid, 3), "more", position, "abc"))
        await peer.send(answer(await asked(peer, uuid, 3), "ended", 7, "defg"))
        assert (await reader.next())["id"] == "7"
        assert await reader.end() == "ended"


async def test_much_output_is_asked_for_no_faster_than_it_may_be_sent(bench: Any, ours: Any) -> None:
    bench.facilitator.logs.pace = replace(bench.facilitator.logs.pace, answer=9, rate=10)
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        await peer.send(answer(await asked(peer, uuid), "more", 4, "abcd"))
        assert (await reader.next())["id"] == "4"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.channel.receive(), 0.2)
        await asked(peer, uuid, 4)


async def test_a_question_without_answer_is_asked_again(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        lost = await asked(peer, uuid)
        again = await asked(peer, uuid)
        await peer.send(answer(lost, "more", 9, "too late"))
        await peer.send(answer(again, "ended", 1, "x"))
        assert (await reader.next())["id"] == "1"
        assert await reader.end() == "ended"


async def test_answers_that_nobody_asked_for_are_dropped(bench: Any, ours: Any, other_key: Any) -> None:
    peer, thief = await bench.validator(headers=ours), await bench.validator(other_key, headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        request = await asked(peer, uuid)
        await peer.send(answer(request, "ended", 9, "x", request_id="unknown"))
        await peer.send(answer(request, "ended", 9, "x", job_uuid="another"))
        await peer.send(answer(request, "ended", 9, "x" * MAX_LOGS_FRAME_BYTES))
        await thief.send(answer(request, "ended", 9, "x"))
        assert (await thief.status("x", "received"))["status"] == "error"  # all of that was handled
        await peer.send(answer(request, "more", 1, "right"))
        assert (await reader.next())["data"]["pieces"][0]["text"] == "right"


async def test_a_lost_connection_is_asked_again_when_it_is_back(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        await asked(peer, uuid)
        await peer.hang_up()
        await asyncio.sleep(0.05)
        again = await bench.validator(headers=ours)
        await again.send(answer(await asked(again, uuid), "ended", 2, "x"))
        assert (await reader.next())["id"] == "2"
        assert await reader.end() == "ended"


async def test_the_last_answer_comes_before_the_end(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        await peer.send(answer(await asked(peer, uuid), "ended", 2, "x"))
        await peer.status(uuid, "completed", RESULT)
        assert (await reader.next())["id"] == "2"
        assert await reader.end() == "ended"


async def test_a_job_that_ends_while_it_is_asked_ends_the_stream(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        request = await asked(peer, uuid)
        await peer.status(uuid, "completed", RESULT)
        assert await reader.end() == "unavailable"
        await peer.send(answer(request, "ended", 2, "x"))
        assert (await peer.status("x", "received"))["status"] == "error"


async def test_a_job_that_moves_on_while_it_is_asked_is_asked_once(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        request = await asked(peer, uuid)
        assert (await peer.status(uuid, "execution_done"))["status"] == "success"
        await asyncio.sleep(0.02)
        await peer.send(answer(request, "ended", 1, "x"))
        assert (await reader.next())["id"] == "1"
        assert await reader.end() == "ended"
        assert (await peer.status("x", "received"))["status"] == "error"  # the next frame: no second question


async def test_a_validator_without_logs_is_not_asked(bench: Any) -> None:
    peer = await bench.validator()
    token, uuid = await running(bench, peer)
    async with Reader(bench, token, uuid) as reader:
        await asyncio.sleep(0.1)
        await peer.status(uuid, "completed", RESULT)  # its answer is the first frame since
        assert await reader.end() == "unavailable"


async def test_a_quiet_stream_is_kept_alive(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer, "received")
    session = bench.facilitator.login.session(token["Authorization"])
    logs = bench.facilitator.logs
    stream = logs.stream(session, uuid, 0, await logs.seat(uuid, session.hotkey))
    await anext(stream)
    assert [await anext(stream) for _ in range(2)] == [b": keep-alive\n\n"] * 2
    await stream.aclose()


async def test_an_ended_jobs_stream_ends_at_once(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    await peer.status(uuid, "completed", RESULT)
    found = await bench.http.get(f"/api/v1/jobs/{uuid}/logs/?position=5", headers=token)
    assert found.headers["content-type"].startswith("text/event-stream")
    assert found.text.endswith('event: end\ndata: {"reason":"unavailable"}\n\n')


async def test_a_stream_ends_with_its_login_and_with_the_service(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer, "received")
    session = bench.facilitator.login.session(token["Authorization"])
    logs = bench.facilitator.logs
    first, second = [logs.stream(session, uuid, 0, await logs.seat(uuid, session.hotkey)) for _ in range(2)]
    await anext(first)
    bench.chain.current, known = Directory(), bench.chain.current
    assert [text async for text in first] == []
    bench.chain.current = known
    await anext(second)
    waiting = asyncio.create_task(anext(second))
    await asyncio.sleep(0.01)
    bench.facilitator.streams.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_others_jobs_and_bad_positions_are_refused(bench: Any, bob: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer)
    url = f"/api/v1/jobs/{uuid}/logs/"
    assert (await bench.http.get(url)).status_code == 401
    theirs = await bench.http.get(url, headers=await bench.login(bob))
    assert (theirs.status_code, theirs.json()) == (404, {"detail": "No Job matches the given query."})
    assert (await bench.http.get("/api/v1/jobs/nonsense/logs/", headers=token)).status_code == 404
    for query, headers, name in (
        ("?position=x", {}, "position"),
        (f"?position={2**53}", {}, "position"),
        ("?position=1", {"Last-Event-ID": "-1"}, "Last-Event-ID"),
    ):
        refused = await bench.http.get(url + query, headers={**token, **headers})
        assert (refused.status_code, list(refused.json())) == (400, [name])


async def test_a_job_has_so_many_followers_and_no_more(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await running(bench, peer, "received")
    user = bench.facilitator.login.session(token["Authorization"]).hotkey
    seats = [await bench.facilitator.logs.seat(uuid, user) for _ in range(PER_JOB)]
    refused = await bench.http.get(f"/api/v1/jobs/{uuid}/logs/", headers=token)
    assert (refused.status_code, list(refused.json())) == (429, ["detail"])
    assert int(refused.headers["Retry-After"]) > 0
    seats[0].leave()
    seats[0].leave()
    async with Reader(bench, token, uuid):
        assert (await bench.http.get(f"/api/v1/jobs/{uuid}/logs/", headers=token)).status_code == 429
    for seat in [await bench.facilitator.logs.seat(uuid, user), *seats[1:]]:
        seat.leave()
    assert not bench.facilitator.logs.seats._taken


async def test_a_user_has_so_many_followers_and_no_more() -> None:
    seats = Seats()
    taken = [seats.take("user", f"job {number}") for number in range(PER_USER)]
    with pytest.raises(ApiError) as refused:
        seats.take("user", "one more")
    assert refused.value.status == 429
    seats.take("another", "job 1").leave()
    for seat in taken:
        seat.leave()


async def test_many_followers_of_one_user_share_what_few_may_ask() -> None:
    seats = Seats()
    few = [seats.take("alice", str(number)) for number in range(4)]
    other = seats.take("bob", "job")
    assert few[0].slowness == 1
    many = [seats.take("alice", str(number)) for number in range(4, PER_USER)]
    assert few[0].slowness == many[-1].slowness == PER_USER / 4
    assert other.slowness == 1
    for seat in [*few, *many, other]:
        seat.leave()


async def test_a_place_that_nobody_takes_is_free_again() -> None:
    seats = Seats(unused_s=0.01)
    late = seats.take("user", "job")
    await asyncio.sleep(0.05)
    assert not seats._taken
    late.sit()
    assert seats._taken == {"user": 1, "job": 1}
    late.leave()
    assert not seats._taken

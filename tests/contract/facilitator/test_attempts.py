"""Waiting and attempts: what validators report, what is stored, and what clients are shown of it."""

import asyncio
import json
from typing import Any

import pytest

from compute_horde.facilitator.job_view import Viewer
from compute_horde.lifecycle.failures import problem
from compute_horde.protocol.extensions import announcement
from compute_horde.storage.errors import DatabaseUnavailable

SUCCESS = {"status": "success", "errors": []}
BUDGET = 7 + 3 + 300 + 5 + 5 + 10 + 7 + 300  # as in test_supervision.py
FAILED = {
    "reported_by": "miner",
    "reason": "executor_disconnected",
    "message": "The executor was lost",
    "context": problem("executor_disconnected", "The executor was lost").to_context(),
}


def attempt(number: int, of: int = 3) -> dict[str, Any]:
    return {"number": number, "of": of, "miner_hotkey": None}


def queue(left_s: float, **place: Any) -> dict[str, Any]:
    return {"time_limit_s": left_s, "reason": "All executors are busy.", **place}


async def sent_job(bench: Any, peer: Any, *statuses: str, **wishes: Any) -> tuple[dict[str, str], str]:
    token = {**await bench.login(), **announcement()}
    uuid = str((await bench.post_job(token, **wishes)).json()["uuid"])
    await peer.receive()
    for status in statuses:
        assert await peer.status(uuid, status) == SUCCESS
    return token, uuid


async def state(bench: Any, uuid: str) -> str:
    """Where it stands now; logged in anew, since the clock was turned."""
    return str((await bench.job(uuid, {**await bench.login(), **announcement()}))["status_history"][-1]["status"])


async def test_a_jobs_history_shows_its_attempts(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer, "received")
    assert await peer.status(uuid, "accepted", {"attempt": attempt(1)}) == SUCCESS
    assert await peer.status(uuid, "executor_ready") == SUCCESS
    again = {"attempt": attempt(2), "queue": queue(60), "horde_failure_details": FAILED}
    assert await peer.status(uuid, "queued", again) == SUCCESS
    assert (await bench.job(uuid, token))["attempt"] == 2
    assert await peer.status(uuid, "accepted", {"attempt": attempt(2)}) == SUCCESS
    assert await peer.status(uuid, "executor_ready") == SUCCESS
    late = await peer.status(uuid, "volumes_ready", {"attempt": attempt(1)})
    assert late["errors"][0]["type"] == "job.integrity_error"
    result = {"miner_response": {"docker_process_stdout": "", "docker_process_stderr": ""}, "attempt": attempt(2)}
    assert await peer.status(uuid, "completed", result) == SUCCESS
    job = await bench.job(uuid, token)
    assert [
        (entry["status"], entry["metadata"].get("attempt", {}).get("number")) for entry in job["status_history"]
    ] == [
        ("sent", None),
        ("received", None),
        ("accepted", 1),
        ("executor_ready", None),
        ("queued", 2),
        ("accepted", 2),
        ("executor_ready", None),
        ("completed", 2),
    ]
    assert job["status_history"][4]["metadata"]["horde_failure_details"]["message"] == "The executor was lost"
    assert (job["attempt"], job["queue"], job["status"]) == (2, None, "Completed")


async def test_an_attempt_whose_queued_was_lost_begins_as_well(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer, "received", "accepted", "executor_ready")
    assert await peer.status(uuid, "accepted", {"attempt": attempt(2)}) == SUCCESS
    assert (await bench.job(uuid, token))["attempt"] == 2
    repeated = await peer.status(uuid, "accepted", {"attempt": attempt(2)})
    assert repeated["errors"][0]["type"] == "job.integrity_error"


async def test_an_older_client_sees_a_job_that_was_received(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer, "received")
    told = {"attempt": attempt(1), "queue": queue(60, position=2, length=5, starts_in_s=30)}
    assert await peer.status(uuid, "queued", told) == SUCCESS
    job = await bench.job(uuid, token)
    assert (job["status"], job["status_history"][-1]["status"]) == ("Received", "queued")
    assert (job["queue"]["position"], job["queue"]["length"]) == (2, 5)
    assert 29 <= job["queue"]["starts_in_s"] <= 30
    older = await bench.login()
    job = await bench.job(uuid, older)
    assert (job["status"], job["queue"]) == ("Received", None)
    assert job["status_history"][-1] == {**job["status_history"][-1], "status": "received", "metadata": {}}
    assert await peer.status(uuid, "accepted", {"attempt": attempt(1)}) == SUCCESS
    assert (await bench.job(uuid, older))["status_history"][-1]["metadata"] == {}
    assert (await bench.job(uuid, token))["queue"] is None


async def test_time_is_renewed_when_a_job_waits_and_when_it_goes_on(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    _, uuid = await sent_job(bench, peer, "received", queue_time_limit=1000)
    bench.clock.ahead += BUDGET - 5
    assert await peer.status(uuid, "queued", {"attempt": attempt(1), "queue": queue(9_999)}) == SUCCESS
    bench.clock.ahead += 1000 + BUDGET - 5
    await bench.facilitator.supervisor.expire()
    assert await state(bench, uuid) == "queued"
    assert await peer.status(uuid, "accepted", {"attempt": attempt(1)}) == SUCCESS
    bench.clock.ahead += BUDGET - 5
    await bench.facilitator.supervisor.expire()
    assert await state(bench, uuid) == "accepted"
    bench.clock.ahead += 10
    await bench.facilitator.supervisor.expire()
    assert await state(bench, uuid) == "horde_failed"


async def test_a_validator_that_tells_for_ever_does_not_make_a_job_immortal(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    _, uuid = await sent_job(bench, peer, "received", queue_time_limit=100, attempts=2, retry_backoff=0)
    for number in range(1, 11):
        bench.clock.ahead += BUDGET - 5
        await peer.send({"message_type": "V0Heartbeat"})
        if number < 5:
            told = await peer.status(uuid, "queued", {"attempt": attempt(number), "queue": queue(10**6)})
            assert told == SUCCESS, number
        await bench.facilitator.supervisor.expire()
    assert await state(bench, uuid) == "horde_failed"


async def test_wishes_are_stored_and_told_to_those_who_know_them(bench: Any, ours: Any, other_key: Any) -> None:
    wishes = {"queue_time_limit": 60, "attempts": 5, "retry_backoff": 2.5, "priority": -3}
    peer, older = await bench.validator(headers=ours), await bench.validator(other_key)
    token = await bench.login()
    job = (await bench.post_job(token, **wishes)).json()
    assert {name: job[name] for name in wishes} == wishes
    assert (await peer.receive())["scheduling"] == wishes
    other = {"target_validator_hotkey": other_key.ss58_address, **wishes}
    assert (await bench.post_job(token, **other)).status_code == 201
    assert "scheduling" not in await older.receive()
    await bench.post_job(token)
    assert "scheduling" not in await peer.receive()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue_time_limit", -1),
        ("queue_time_limit", 10**7),
        ("attempts", 0),
        ("attempts", 11),
        ("retry_backoff", -0.5),
        ("retry_backoff", 4000),
        ("priority", 101),
    ],
)
async def test_a_wish_beyond_its_bounds_is_400(bench: Any, name: str, value: Any) -> None:
    await bench.validator()
    answer = await bench.post_job(await bench.login(), **{name: value})
    assert (answer.status_code, list(answer.json())) == (400, [name])


def event_of(text: bytes) -> tuple[str, Any]:
    fields = dict(line.split(": ", 1) for line in text.decode().strip().split("\n"))
    return fields["event"], json.loads(fields["data"])


async def next_event(stream: Any) -> tuple[str, Any]:
    while (text := await asyncio.wait_for(anext(stream), 5)).startswith(b":"):
        pass
    if text.startswith(b"event: queue"):
        assert b"id:" not in text
    return event_of(text)


async def places(peer: Any, *told: tuple[str, int]) -> None:
    jobs = [{"job_uuid": uuid, "position": position, "length": 9} for uuid, position in told]
    await peer.send({"message_type": "V0QueueUpdate", "jobs": jobs})


async def test_places_are_pushed_to_those_who_know_them(bench: Any, ours: Any, other_key: Any) -> None:
    peer = await bench.validator(headers=ours)
    stranger = await bench.validator(other_key, headers=ours)
    token, first = await sent_job(bench, peer, "received")
    _, second = await sent_job(bench, peer, "received")
    _, running = await sent_job(bench, peer, "received", "accepted")
    for uuid in (first, second):
        await peer.status(uuid, "queued", {"attempt": attempt(1), "queue": queue(60)})
    session = bench.facilitator.login.session(token["Authorization"])
    last = await bench.facilitator.events.start_after(session, None)
    streams = [bench.facilitator.events.stream(session, last, Viewer(True, knows)) for knows in (True, False)]
    for stream in streams:
        await anext(stream)
    await places(peer, (first, 1), (second, 2), (running, 3), ("nobody's", 4))
    seen = [await next_event(streams[0]) for _ in range(2)]
    assert {name for name, _ in seen} == {"queue"}
    assert {(data["job_uuid"], data["queue"]["position"]) for _, data in seen} == {(first, 1), (second, 2)}
    assert (await bench.job(first, token))["queue"] == {"position": 1, "length": 9, "starts_in_s": None}
    assert (await bench.job(running, token))["queue"] is None
    await places(stranger, (first, 7))
    await places(peer, (first, 1), (second, 1))
    name, data = await next_event(streams[0])
    assert (name, data["job_uuid"], data["queue"]["position"]) == ("queue", second, 1)
    await peer.status(first, "accepted", {"attempt": attempt(1)})
    for stream in streams:
        name, data = await next_event(stream)
        assert (name, data["entry"]["status"]) == ("status", "accepted")
    fresh = bench.facilitator.events.stream(session, last + 1, Viewer(True, True))
    await anext(fresh)
    name, data = await next_event(fresh)
    assert (name, data["job_uuid"], data["queue"]["position"]) == ("queue", second, 1)
    for stream in (*streams, fresh):
        await stream.aclose()


async def test_places_that_cannot_be_stored_are_dropped(bench: Any, ours: Any, monkeypatch: Any) -> None:
    async def away(*_: Any) -> None:
        raise DatabaseUnavailable("away")

    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer, "received")
    await peer.status(uuid, "queued", {"attempt": attempt(1), "queue": queue(60)})
    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.places, "note", away)
        await places(peer, (uuid, 1))
        assert (await peer.status("x", "received"))["errors"][0]["type"] == "job.not_found"
    await places(peer, (uuid, 2))
    assert (await peer.status("x", "received"))["errors"][0]["type"] == "job.not_found"
    assert (await bench.job(uuid, token))["queue"]["position"] == 2

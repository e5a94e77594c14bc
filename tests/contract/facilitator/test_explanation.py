"""GET /api/v1/jobs/{uuid}/explanation/: the validator's words, or the facilitator's where it cannot be asked."""

import asyncio
from typing import Any

import pytest

from compute_horde.protocol.extensions import announcement

EXPLAINED = {
    "state": "queued",
    "summary": "All executors are busy.",
    "reported_by": "validator",
    "attempt": 1,
    "attempts": 3,
    "queue": {"position": 1, "length": 2, "starts_in_s": 5.0},
    "queue_time_left_s": 60.0,
    "miners": [{"miner_hotkey": "m", "answer": "busy", "message": "no room", "last_at": "2026-01-01T00:00:00Z"}],
    "remedies": ["Wait."],
}


async def explanation(bench: Any, uuid: str) -> Any:
    answer = await bench.http.get(f"/api/v1/jobs/{uuid}/explanation/", headers=await bench.login())
    assert answer.status_code == 200, answer.text
    return answer.json()


async def sent_job(bench: Any, peer: Any, *statuses: str) -> str:
    token = {**await bench.login(), **announcement()}
    uuid = str((await bench.post_job(token)).json()["uuid"])
    await peer.receive()
    for status in statuses:
        await peer.status(uuid, status, METADATA.get(status))
    return uuid


METADATA = {
    "queued": {
        "attempt": {"number": 1, "of": 3},
        "queue": {"position": 4, "length": 9, "starts_in_s": 60, "time_limit_s": 100},
    },
    "completed": {"miner_response": {"docker_process_stdout": "", "docker_process_stderr": ""}},
    "streaming_ready": {"streaming_details": {"streaming_server_port": 1}},
    "rejected": {
        "job_rejection_details": {"rejected_by": "validator", "reason": "busy", "message": "No room."},
    },
}


async def test_the_validator_is_asked(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    uuid = await sent_job(bench, peer, "received")
    asking = asyncio.create_task(explanation(bench, uuid))
    asked = await peer.receive()
    assert (asked["message_type"], asked["job_uuid"]) == ("V0ExplainJobRequest", uuid)
    answer = {"job_uuid": uuid, "request_id": asked["request_id"], "explanation": {"job_uuid": uuid, **EXPLAINED}}
    await peer.send({"message_type": "V0ExplainJobResponse", **answer})
    found = await asking
    assert {name: found[name] for name in EXPLAINED if name != "miners"} == {
        name: value for name, value in EXPLAINED.items() if name != "miners"
    }
    assert found["miners"][0]["last_at"] == "2026-01-01T00:00:00.000000Z"
    assert bench.facilitator.questions._open == {}


@pytest.mark.parametrize("told", [None, {"job_uuid": "another", **EXPLAINED}, "logs", "lost", "silence"])
async def test_without_an_answer_the_facilitator_says_what_it_knows(bench: Any, ours: Any, told: Any) -> None:
    peer = await bench.validator(headers=ours)
    uuid = await sent_job(bench, peer, "received")
    asking = asyncio.create_task(explanation(bench, uuid))
    asked = await peer.receive()
    answer = {"job_uuid": uuid, "request_id": asked["request_id"]}
    if told == "lost":
        await peer.hang_up()
    elif told == "logs":
        await peer.send({"message_type": "V0JobLogsResponse", **answer, "state": "more", "position": 0})
    elif told != "silence":
        await peer.send({"message_type": "V0ExplainJobResponse", **answer, "explanation": told})
    found = await asking
    assert (found["reported_by"], found["state"]) == ("facilitator", "received")
    assert bench.facilitator.questions._open == {}


@pytest.mark.parametrize(
    "statuses",
    [
        (),
        ("received",),
        ("queued",),
        ("accepted",),
        ("executor_ready",),
        ("volumes_ready",),
        ("streaming_ready",),
        ("execution_done",),
        ("completed",),
        ("rejected",),
        ("failed",),
        ("horde_failed",),
    ],
)
async def test_every_state_has_words(bench: Any, statuses: tuple[str, ...]) -> None:
    peer = await bench.validator()
    uuid = await sent_job(bench, peer, *statuses)
    found = await explanation(bench, uuid)
    assert found["state"] == (statuses or ("sent",))[0]
    assert found["summary"]
    assert "{" not in found["summary"]
    assert (found["attempt"], found["miners"]) == (1, [])
    assert "not connected" not in found["summary"]
    if statuses == ("rejected",):
        assert found["summary"] == "The job was rejected: No room."
    if statuses == ("queued",):
        assert (found["attempts"], found["queue"]["position"]) == (3, 4)
    await peer.hang_up()
    away = await explanation(bench, uuid)
    under_way = statuses[:1] not in (("completed",), ("rejected",), ("failed",), ("horde_failed",))
    assert ("not connected to the facilitator since 20" in away["summary"]) is under_way
    assert len(away["remedies"]) == (2 if under_way else 0)


async def test_a_cancelled_job_says_so(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await bench.login(), await sent_job(bench, peer, "received")
    await peer.hang_up()
    await bench.http.post(f"/api/v1/jobs/{uuid}/cancel/", headers=token)
    assert "being cancelled" in (await explanation(bench, uuid))["summary"]
    bench.clock.ahead += 61
    await bench.facilitator.supervisor.expire()
    assert (await explanation(bench, uuid))["state"] == "cancelled"


async def test_other_users_jobs_are_not_explained(bench: Any, bob: Any) -> None:
    peer = await bench.validator()
    uuid = await sent_job(bench, peer)
    url = f"/api/v1/jobs/{uuid}/explanation/"
    assert (await bench.http.get(url, headers=await bench.login(bob))).status_code == 404
    assert (await bench.http.get(url)).status_code == 401
    assert (await bench.http.get("/api/v1/jobs/x/explanation/", headers=await bench.login())).status_code == 404

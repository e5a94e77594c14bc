"""POST /api/v1/jobs/{uuid}/cancel/: stored, passed on, and kept whatever the validator does."""

from typing import Any

import pytest

from compute_horde.facilitator import store
from compute_horde.facilitator.facilitator import Facilitator
from compute_horde.facilitator.job_view import Viewer
from compute_horde.lifecycle.failures import problem
from compute_horde.protocol.extensions import announcement
from compute_horde.protocol.problems import Problem

SUCCESS = {"status": "success", "errors": []}
RESULT = {"miner_response": {"docker_process_stdout": "out", "docker_process_stderr": ""}}
CANCELLED = {
    "job_failure_details": {
        "reason": "unknown",
        "stage": "execution",
        "message": "The job was cancelled",
        "docker_process_stdout": "so far",
        "docker_process_stderr": "hm",
        "context": problem("cancelled", "The job was cancelled").to_context(),
    }
}


async def cancel(bench: Any, token: dict[str, str], uuid: str) -> Any:
    return await bench.http.post(f"/api/v1/jobs/{uuid}/cancel/", headers={**token, **announcement()})


async def sent_job(bench: Any, peer: Any, *statuses: str) -> tuple[dict[str, str], str]:
    token = await bench.login()
    uuid = str((await bench.post_job(token)).json()["uuid"])
    await peer.receive()
    for status in statuses:
        assert await peer.status(uuid, status) == SUCCESS
    return token, uuid


async def entry(bench: Any, uuid: str) -> Any:
    token = {**await bench.login(), **announcement()}
    return (await bench.job(uuid, token))["status_history"][-1]


def cancel_frame(uuid: str) -> dict[str, str]:
    return {"message_type": "V0CancelJobRequest", "job_uuid": uuid}


def found_problem(last: Any) -> Problem:
    details = last["metadata"]["job_failure_details"]
    found = Problem.from_context(details["context"], details["message"])
    assert found is not None
    return found


async def test_a_cancelled_job_ends_with_what_it_printed(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer, "received", "volumes_ready")
    answer = await cancel(bench, token, uuid)
    assert (answer.status_code, answer.json()["cancel_requested"]) == (200, True)
    assert answer.json()["status_history"][-1]["status"] == "volumes_ready"
    assert await peer.receive() == cancel_frame(uuid)
    assert await peer.status(uuid, "failed", CANCELLED) == SUCCESS
    job = await bench.job(uuid, {**token, **announcement()})
    assert (job["status"], job["status_history"][-1]["status"]) == ("Failed", "cancelled")
    assert (job["stdout"], job["stderr"]) == ("so far", "hm")


async def test_older_clients_are_shown_failed(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer)
    await peer.status(uuid, "failed", CANCELLED)
    job = await bench.job(uuid, token)
    assert (job["status"], job["stdout"], job["status_history"][-1]["status"]) == ("Failed", "", "failed")
    listed = (await bench.http.get("/api/v1/jobs/", headers=token)).json()["results"][0]
    assert listed["status_history"][-1]["status"] == "failed"
    session = bench.facilitator.login.session(token["Authorization"])
    for knows, shown in ((True, b'"cancelled"'), (False, b'"failed"')):
        stream = bench.facilitator.events.stream(session, 1, Viewer(knows_cancelled=knows))
        texts = [await anext(stream) for _ in range(2)]
        assert b'"status":' + shown in texts[1]
        await stream.aclose()


async def test_cancelling_again_changes_nothing(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer, "received")
    for _ in range(3):
        assert (await cancel(bench, token, uuid)).status_code == 200
    assert await peer.receive() == cancel_frame(uuid)
    assert await peer.status(uuid, "accepted") == SUCCESS  # and no second request came before this


async def test_an_ended_job_is_left_as_it_is(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer)
    await peer.status(uuid, "completed", RESULT)
    answer = await cancel(bench, token, uuid)
    assert (answer.status_code, answer.json()["status"]) == (200, "Completed")
    assert answer.json()["cancel_requested"] is False


async def test_others_and_unknown_jobs_are_not_found(bench: Any, bob: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer)
    theirs = await cancel(bench, await bench.login(bob), uuid)
    assert (theirs.status_code, theirs.json()) == (404, {"detail": "No Job matches the given query."})
    assert (await cancel(bench, token, "11111111-1111-4111-8111-111111111111")).status_code == 404
    assert (await cancel(bench, token, "nonsense")).json() == {"detail": "Not found."}
    assert (await bench.http.post(f"/api/v1/jobs/{uuid}/cancel/")).status_code == 401
    assert (await bench.job(uuid, token))["cancel_requested"] is False


async def test_a_result_that_was_quicker_wins(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer)
    await cancel(bench, token, uuid)
    assert await peer.receive() == cancel_frame(uuid)
    assert await peer.status(uuid, "completed", RESULT) == SUCCESS
    assert (await bench.job(uuid, token))["status"] == "Completed"


async def test_a_validator_that_cannot_cancel_is_sent_nothing(bench: Any) -> None:
    peer = await bench.validator()
    token, uuid = await sent_job(bench, peer, "received")
    answer = await cancel(bench, token, uuid)
    assert answer.json()["status_history"][-1]["status"] == "cancelled"
    found = found_problem(await entry(bench, uuid))
    assert (found.code, found.fault) == ("cancelled", "user")
    late = await peer.status(uuid, "accepted")  # the first frame since: nothing was pushed
    assert late["errors"][0]["type"] == "job.integrity_error"


async def test_the_request_waits_for_the_validator_and_follows_its_job(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, sent = await sent_job(bench, peer)
    _, running = await sent_job(bench, peer, "received")
    await peer.hang_up()
    for uuid in (sent, running):
        await cancel(bench, token, uuid)
    for _ in range(2):  # at each connection again
        again = await bench.validator(headers=ours)
        frames = [await again.receive() for _ in range(3)]
        assert [frame["message_type"] for frame in frames] == ["V2JobRequest", *["V0CancelJobRequest"] * 2]
        assert frames[0]["uuid"] == sent
        assert frames[1:] == [cancel_frame(sent), cancel_frame(running)]
        await again.hang_up()
    last = await bench.validator(headers=ours)
    for _ in range(3):
        await last.receive()
    assert await last.status(sent, "failed", CANCELLED) == SUCCESS
    await last.hang_up()
    final = await bench.validator(headers=ours)
    assert await final.receive() == cancel_frame(running)


async def test_a_validator_that_comes_back_unable_to_cancel_is_not_given_the_job(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer)
    await peer.hang_up()
    await cancel(bench, token, uuid)
    old = await bench.validator()
    late = await old.status(uuid, "received")
    assert late["errors"][0]["type"] == "job.integrity_error"
    assert (await entry(bench, uuid))["status"] == "cancelled"


async def test_a_newer_connection_is_told_instead(bench: Any, ours: Any) -> None:
    old = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, old, "received")
    await bench.validator(headers=ours)
    await cancel(bench, token, uuid)
    link = bench.facilitator.links.all()[0]
    await bench.facilitator.cancelling.hand_over(link, is_new=False)
    assert link.outbox.empty()


async def test_a_job_that_was_never_given_to_a_validator_ends_at_once(
    bench: Any, monkeypatch: Any, ours: Any
) -> None:
    facilitator = bench.facilitator
    peer, token = await bench.validator(headers=ours), await bench.login()
    create, links = facilitator.store.create, facilitator.links

    async def create_and_lose_the_validator(*args: Any) -> Any:
        stored = await create(*args)
        links.remove(links.all()[0])
        return stored

    monkeypatch.setattr(facilitator.store, "create", create_and_lose_the_validator)
    uuid = (await bench.post_job(token)).json()["uuid"]
    answer = await cancel(bench, token, uuid)
    last = answer.json()["status_history"][-1]
    assert (last["status"], found_problem(last).code) == ("cancelled", "cancelled")
    assert "before" in found_problem(last).message
    again = await bench.validator(headers=ours)
    assert await again.receive() == cancel_frame(uuid)  # harmless; the job itself is not given to it
    late = await again.status(uuid, "received")
    assert late["errors"][0]["type"] == "job.integrity_error"
    await peer.hang_up()


async def test_a_job_that_was_only_late_is_given_and_cancelled_as_any_other(
    bench: Any, monkeypatch: Any, ours: Any
) -> None:
    facilitator = bench.facilitator
    await bench.validator(headers=ours)
    token, links = await bench.login(), facilitator.links
    create = facilitator.store.create

    async def create_and_lose_the_validator(*args: Any) -> Any:
        links.remove(links.all()[0])
        return await create(*args)

    with monkeypatch.context() as patch:
        patch.setattr(facilitator.store, "create", create_and_lose_the_validator)
        uuid = (await bench.post_job(token)).json()["uuid"]
    again = await bench.validator(headers=ours)
    assert (await again.receive())["uuid"] == uuid
    await cancel(bench, token, uuid)
    assert await again.receive() == cancel_frame(uuid)


@pytest.mark.parametrize("statuses", [(), ("received",)])
async def test_a_validator_that_does_not_confirm_is_not_waited_for(
    bench: Any, ours: Any, statuses: tuple[str, ...]
) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer, *statuses)
    await cancel(bench, token, uuid)
    assert await peer.receive() == cancel_frame(uuid)
    bench.clock.ahead += 40
    await peer.status(uuid, "accepted")  # gives it no more time
    await cancel(bench, token, uuid)  # nor does this
    bench.clock.ahead += 19
    await bench.facilitator.supervisor.expire()
    assert (await entry(bench, uuid))["status"] == "accepted"
    bench.clock.ahead += 2
    await bench.facilitator.supervisor.expire()
    last = await entry(bench, uuid)
    assert (last["status"], found_problem(last).code) == ("cancelled", "cancelled")
    assert "confirm" in found_problem(last).message
    late = await peer.status(uuid, "failed", CANCELLED)
    assert late["errors"][0]["type"] == "job.integrity_error"
    assert bench.facilitator.links.all()[0].pushed == set()


async def test_a_validator_that_was_away_too_long_is_told_when_it_is_back(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer, "received", "accepted", "executor_ready")
    await peer.hang_up()
    await cancel(bench, token, uuid)
    bench.clock.ahead += 61
    await bench.facilitator.supervisor.expire()
    assert (await entry(bench, uuid))["status"] == "cancelled"
    old = await bench.validator()
    assert (await old.status(uuid, "volumes_ready"))["errors"][0]["type"] == "job.integrity_error"
    again = await bench.validator(headers=ours)
    assert await again.receive() == cancel_frame(uuid)
    bench.clock.ahead += 2 * 3600  # nothing can wait or run any more
    late = await bench.validator(headers=ours)
    assert (await late.status(uuid, "volumes_ready"))["errors"][0]["type"] == "job.integrity_error"


async def test_many_overdue_jobs_are_ended_some_at_a_time(bench: Any, ours: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(store, "OVERDUE", 1)
    peer = await bench.validator(headers=ours)
    uuids = [(await sent_job(bench, peer))[1] for _ in range(2)]
    bench.clock.ahead += 7 * 24 * 3600
    for ended in (1, 2):
        await bench.facilitator.supervisor.expire()
        found = [(await entry(bench, uuid))["status"] for uuid in uuids]
        assert found.count("failed") + found.count("horde_failed") == ended


async def test_the_limit_survives_a_restart(bench: Any, ours: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer)
    await cancel(bench, token, uuid)
    bench.clock.ahead += 61
    again = Facilitator(bench.facilitator.settings, bench.chain, now=bench.clock)
    await again.open()
    await again.supervisor.expire()
    await again.close()
    assert (await entry(bench, uuid))["status"] == "cancelled"


async def test_an_end_that_came_first_is_left_alone(bench: Any, ours: Any, monkeypatch: Any) -> None:
    peer = await bench.validator(headers=ours)
    token, uuid = await sent_job(bench, peer)
    monkeypatch.setattr(bench.facilitator.cancelling, "_on_deadline", lambda _: None)  # it sleeps on meanwhile
    await cancel(bench, token, uuid)
    bench.clock.ahead += 61
    overdue = await bench.facilitator.store.overdue(bench.clock())

    async def read_before_the_end(_now: float) -> Any:
        return overdue

    await peer.receive()
    await peer.status(uuid, "completed", RESULT)
    monkeypatch.setattr(bench.facilitator.store, "overdue", read_before_the_end)
    await bench.facilitator.supervisor.expire()
    assert (await entry(bench, uuid))["status"] == "completed"

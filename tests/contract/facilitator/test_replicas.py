"""Two facilitators on one database: any serves any client, and a validator connected to one gets all its jobs.

``tests/integration/facilitator`` runs these over PostgreSQL as well.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, update
from tests.contract.facilitator.bench import Bench, Clock, Replicated, open_bench

from compute_horde.facilitator import presence
from compute_horde.facilitator.job_view import Viewer
from compute_horde.facilitator.registry import LiveLink
from compute_horde.facilitator.replicas import HttpReplicas
from compute_horde.facilitator.tables import links
from compute_horde.protocol.extensions import announcement
from compute_horde.protocol.facilitator_validator import HEADER_INSTANCE, V0ExplainJobRequest
from compute_horde.storage.bus import Bus, LocalBus

SUCCESS = {"status": "success", "errors": []}
RESULT = {"miner_response": {"docker_process_stdout": "out", "docker_process_stderr": ""}}


def instance(name: str) -> dict[str, str]:
    return {**announcement(), HEADER_INSTANCE: name}


@dataclass(frozen=True)
class Shared:
    """A database; ``bus``: between two facilitators in one process, None where the database has its own."""

    url: str
    bus: Bus | None


@dataclass(frozen=True)
class Pair:
    a: Bench
    b: Bench


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(f"sqlite:///{tmp_path}/facilitator.db", LocalBus())


@pytest.fixture
async def pair(shared: Shared, clock: Clock) -> AsyncIterator[Pair]:
    async with contextlib.AsyncExitStack() as stack:
        others = Replicated()
        a, b = [
            await stack.enter_async_context(
                open_bench(shared.url, clock, host=host, bus=shared.bus, others=others)
            )
            for host in ("a", "b")
        ]
        yield Pair(a, b)


async def create(bench: Bench, **changes: Any) -> tuple[dict[str, str], str]:
    token = {**await bench.login(), **announcement()}
    answer = await bench.post_job(token, **changes)
    assert answer.status_code == 201, answer.text
    return token, str(answer.json()["uuid"])


def kinds(response: dict[str, Any]) -> list[str]:
    return [error["type"] for error in response["errors"]]


async def nothing_came(peer: Any) -> None:
    assert kinds(await peer.status("x", "received")) == ["job.not_found"]


async def test_a_login_is_good_at_every_replica(pair: Pair) -> None:
    token = await pair.a.login()
    assert (await pair.b.http.get("/api/v1/jobs/", headers=token)).status_code == 200


async def test_a_nonce_logs_in_once_at_all_of_them(pair: Pair, alice: Any) -> None:
    nonce = (await pair.a.http.get("/auth/nonce")).json()["nonce"]
    body = {"hotkey": alice.ss58_address, "signature": alice.sign(nonce.encode()).hex(), "nonce": nonce}
    answers = await asyncio.gather(*(one.http.post("/auth/login", json=body) for one in (pair.a, pair.b)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]


async def test_the_same_creation_at_two_replicas_makes_one_job(pair: Pair) -> None:
    peer, token = await pair.a.validator(headers=instance("one")), await pair.a.login()
    body = pair.a.body()
    headers = {**token, **pair.a.sign(body)}
    answers = await asyncio.gather(
        *(one.http.post("/api/v1/job-docker/", json=body, headers=headers) for one in (pair.a, pair.b))
    )
    uuids = {answer.json()["uuid"] for answer in answers}
    assert ([answer.status_code for answer in answers], len(uuids)) == ([201, 201], 1)
    assert {(await peer.receive())["uuid"]} == uuids
    await nothing_came(peer)


async def test_a_job_made_at_one_reaches_a_validator_at_the_other_and_back(pair: Pair) -> None:
    peer = await pair.a.validator(headers=instance("one"))
    token = {**await pair.b.login(), **announcement()}
    session = pair.b.facilitator.login.session(token["Authorization"])
    events = pair.b.facilitator.events
    stream = events.stream(session, await events.start_after(session, None), Viewer(True, True))
    await anext(stream)
    uuid = (await pair.b.post_job(token)).json()["uuid"]
    assert (await peer.receive())["uuid"] == uuid
    for status, metadata in (("received", None), ("accepted", None), ("completed", RESULT)):
        assert await peer.status(uuid, status, metadata) == SUCCESS
    seen: list[str] = []
    while len(seen) < 4:
        text = (await asyncio.wait_for(anext(stream), 10)).decode()
        seen += [status for status in ("sent", "received", "accepted", "completed") if f'"{status}"' in text]
    assert seen == ["sent", "received", "accepted", "completed"]
    await stream.aclose()
    assert (await pair.b.job(uuid, token))["stdout"] == "out"
    await nothing_came(peer)


async def test_a_job_too_large_for_the_other_replicas_connection_is_refused(pair: Pair) -> None:
    await pair.a.validator()
    volume = {"volume_type": "inline", "contents": "A" * 1_100_000, "relative_path": None}
    answer = await pair.b.post_job(await pair.b.login(), volumes=[volume])
    assert "at most" in answer.json()["non_field_errors"][0]


async def test_without_the_validator_anywhere_nothing_is_taken(pair: Pair) -> None:
    peer = await pair.a.validator()
    await peer.hang_up()
    assert (await pair.b.post_job(await pair.b.login())).json() == ["Could not select Validator"]


async def test_a_cancel_finds_its_way(pair: Pair) -> None:
    peer = await pair.a.validator(headers=instance("one"))
    token, uuid = await create(pair.b)
    await peer.receive()
    await peer.status(uuid, "received")
    answer = await pair.b.http.post(f"/api/v1/jobs/{uuid}/cancel/", headers=token)
    assert answer.json()["cancel_requested"] is True
    assert await peer.receive() == {"message_type": "V0CancelJobRequest", "job_uuid": uuid}


async def test_a_cheat_report_finds_its_way(pair: Pair, alice: Any) -> None:
    peer = await pair.a.validator(headers=instance("one"))
    token, uuid = await create(pair.a)
    _, trusted = await create(pair.a, on_trusted_miner=True)
    for _ in range(2):
        await peer.receive()
    body = {"job_uuid": uuid, "trusted_job_uuid": trusted, "details": None}
    headers = {**token, **pair.b.sign_whole(body)}
    assert (await pair.b.http.post("/api/v1/cheated-job/", json=body, headers=headers)).status_code == 201
    assert (await peer.receive())["message_type"] == "V0JobCheated"


async def test_two_links_one_job_each(pair: Pair) -> None:
    one = await pair.a.validator(headers=instance("one"))
    two = await pair.b.validator(headers=instance("two"))
    _, uuid = await create(pair.a)
    assert (await one.receive())["uuid"] == uuid
    await nothing_came(two)
    await one.hang_up()  # before it confirmed
    assert (await asyncio.wait_for(two.receive(), 10))["uuid"] == uuid
    assert await two.status(uuid, "received") == SUCCESS


async def test_a_validator_that_moves_to_the_other_replica_is_given_it_there(pair: Pair) -> None:
    await pair.a.validator(headers=instance("one"))
    _, uuid = await create(pair.a)
    again = await pair.b.validator(headers=instance("one"))  # nobody noticed yet that the first is dead
    assert (await again.receive())["uuid"] == uuid


async def test_the_jobs_of_a_dead_replica_go_on_at_the_other(shared: Shared, clock: Clock) -> None:
    others = Replicated()
    async with open_bench(shared.url, clock, host="b", bus=shared.bus, others=others) as alive:
        two = await alive.validator(headers=instance("two"))
        async with open_bench(shared.url, clock, host="a", bus=shared.bus, others=others) as dying:
            one = await dying.validator(headers=instance("one"))
            _, uuid = await create(dying)
            assert (await one.receive())["uuid"] == uuid
            await nothing_came(two)
            await dying.facilitator.owners.close()  # all that the others see of its death
            alive.facilitator.delivering.wake(one_hotkey(alive))
            assert (await two.receive())["uuid"] == uuid
            assert await alive.facilitator.registry.clear() == 1
            assert await alive.facilitator.registry.clear() == 0


def one_hotkey(bench: Bench) -> str:
    return bench.facilitator.links.all()[0].hotkey


async def test_a_link_that_is_not_renewed_counts_as_gone(pair: Pair) -> None:
    peer = await pair.a.validator()
    hotkey = one_hotkey(pair.a)
    board = pair.b.facilitator.board
    assert len(await board.live(hotkey)) == 1
    async with pair.a.facilitator.database.begin() as connection:
        await connection.execute(update(links).values(lease_until=1.0))
    assert await board.live(hotkey) == []
    assert (await pair.b.post_job(await pair.b.login())).status_code == 400
    assert await pair.b.facilitator.registry.clear() == 1
    await pair.a.facilitator.desk.sweep()  # it is there after all
    assert len(await board.live(hotkey)) == 1
    await peer.hang_up()
    assert await board.live(hotkey) == []
    assert await pair.a.facilitator.board.last_seen(hotkey) == pytest.approx(pair.a.clock(), abs=5)


async def test_a_lost_notification_only_delays(pair: Pair, monkeypatch: Any) -> None:
    monkeypatch.setattr(presence, "RECHECK_SECONDS", 0.05)
    peer = await pair.a.validator(headers=instance("one"))
    monkeypatch.setattr(pair.b.facilitator.bus, "notify", lambda _: None)
    _, uuid = await create(pair.b)
    pair.a.facilitator.bus.notify(f"validator:{one_hotkey(pair.a)}")  # the pause that it began with is longer
    assert (await peer.receive())["uuid"] == uuid
    _, second = await create(pair.b)
    assert (await peer.receive())["uuid"] == second


async def test_a_failure_while_handing_over_is_tried_again(pair: Pair, monkeypatch: Any) -> None:
    monkeypatch.setattr(presence, "RETRY_SECONDS", 0.01)
    peer = await pair.a.validator(headers=instance("one"))
    handing, failed = pair.a.facilitator.delivering._handing, asyncio.Event()
    claim = handing.claim

    async def fail_once(*args: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("no database")
        return await claim(*args)

    monkeypatch.setattr(handing, "claim", fail_once)
    _, uuid = await create(pair.b)
    assert (await peer.receive())["uuid"] == uuid
    assert failed.is_set()


async def test_explanations_and_output_come_through_the_other_replica(pair: Pair) -> None:
    peer = await pair.a.validator(headers=instance("one"))
    token, uuid = await create(pair.b)
    await peer.receive()
    for status in ("received", "volumes_ready"):
        await peer.status(uuid, status)
    asking = asyncio.create_task(pair.b.http.get(f"/api/v1/jobs/{uuid}/explanation/", headers=token))
    asked = await peer.receive()
    words = {"job_uuid": uuid, "state": "volumes_ready", "summary": "It runs.", "reported_by": "validator"}
    answer = {"job_uuid": uuid, "request_id": asked["request_id"]}
    await peer.send({"message_type": "V0ExplainJobResponse", **answer, "explanation": words})
    assert (await asking).json()["summary"] == "It runs."
    logs, session = pair.b.facilitator.logs, pair.b.facilitator.login.session(token["Authorization"])
    stream = logs.stream(session, uuid, 0, await logs.seat(uuid, session.hotkey))
    await anext(stream)
    reading = asyncio.create_task(text_behind_comments(stream))
    asked = await peer.receive()
    piece = {"stream": "stdout", "offset": 0, "text": "hello"}
    told = {"job_uuid": uuid, "request_id": asked["request_id"], "state": "ended", "position": 5}
    await peer.send({"message_type": "V0JobLogsResponse", **told, "pieces": [piece]})
    assert b"hello" in await reading
    await stream.aclose()
    assert pair.a.facilitator.questions._open == pair.b.facilitator.questions._open == {}


async def text_behind_comments(stream: Any) -> bytes:
    while (text := await asyncio.wait_for(anext(stream), 10)).startswith(b":"):
        pass
    return bytes(text)


async def test_a_replica_that_does_not_answer_is_answered_for(pair: Pair) -> None:
    peer = await pair.a.validator(headers=instance("one"))
    token, uuid = await create(pair.b)
    await peer.receive()
    others: Any = pair.b.facilitator._replicas._http._transport
    others.hosts.pop("a")
    answer = await pair.b.http.get(f"/api/v1/jobs/{uuid}/explanation/", headers=token)
    assert (answer.json()["reported_by"], answer.json()["state"]) == ("facilitator", "sent")


async def test_only_replicas_may_ask_and_only_of_connections_that_are_here(pair: Pair) -> None:
    peer = await pair.a.validator(headers=instance("one"))
    older = await pair.a.validator()
    new, old = pair.a.facilitator.links.all()
    question = {"message_type": "V0ExplainJobRequest", "job_uuid": "j", "request_id": "r"}
    replica = {"Authorization": pair.b.facilitator._replica_token()}

    async def ask(link: str, headers: dict[str, str], body: Any = question) -> int:
        return (await pair.a.http.post(f"/replica/v0/questions/{link}/", json=body, headers=headers)).status_code

    assert await ask(new.id, {}) == 401
    assert await ask(new.id, await pair.a.login()) == 401
    assert await ask(new.id, replica, {"message_type": "V0Heartbeat"}) == 400
    assert await ask("nowhere", replica) == 404
    assert await ask(old.id, replica) == 404  # it did not announce that it can tell
    asking = asyncio.create_task(ask(new.id, replica))
    assert await peer.receive() == question
    await peer.send({"message_type": "V0ExplainJobResponse", "job_uuid": "j", "request_id": "r"})
    assert await asking == 200
    await nothing_came(older)


async def test_a_replicas_token_logs_nobody_in(pair: Pair) -> None:
    headers = {"Authorization": pair.a.facilitator._replica_token()}
    assert (await pair.b.http.get("/api/v1/jobs/", headers=headers)).status_code == 401


async def test_followers_at_both_see_every_status_once_and_in_order(pair: Pair) -> None:
    peer = await pair.a.validator(headers=instance("one"))
    token = {**await pair.b.login(), **announcement()}
    streams = []
    for one in (pair.a, pair.b):
        session = one.facilitator.login.session(token["Authorization"])
        streams.append(one.facilitator.events.stream(session, 0, Viewer(True, True)))

    async def follow(stream: Any) -> list[int]:
        ids: list[int] = []
        while len(ids) < 60:
            text = await text_behind_comments(stream)
            ids += [int(text.split(b"\n")[0].removeprefix(b"id: "))]
        return ids

    following = [asyncio.create_task(follow(stream)) for stream in streams]
    await asyncio.gather(*((pair.a, pair.b)[n % 2].post_job(token) for n in range(30)))
    uuids = [(await peer.receive())["uuid"] for _ in range(30)]
    assert [await peer.status(uuid, "received") for uuid in uuids] == [SUCCESS] * 30
    seen = await asyncio.gather(*following)
    assert seen[0] == seen[1] == sorted(set(seen[0]))
    for stream in streams:
        await stream.aclose()


async def test_every_replica_may_give_up_a_job_and_it_ends_once(pair: Pair) -> None:
    peer = await pair.a.validator(headers=instance("one"))
    _, uuid = await create(pair.b)
    await peer.receive()
    pair.a.clock.ahead += 10_000
    await asyncio.gather(*(one.facilitator.supervisor.expire() for one in (pair.a, pair.b)))
    job = await pair.a.job(uuid, {**await pair.a.login(), **announcement()})
    assert [entry["status"] for entry in job["status_history"]] == ["sent", "horde_failed"]


async def test_a_job_on_the_fast_path_costs_one_transaction_to_write(pair: Pair) -> None:
    peer, token = await pair.a.validator(headers=instance("one")), await pair.a.login()
    written: list[str] = []

    def note(*args: Any) -> None:
        if args[2].split()[0] in ("UPDATE", "INSERT", "DELETE"):
            written.append(" ".join(args[2].split()[:3]))

    event.listen(pair.a.facilitator.database.engine.sync_engine, "before_cursor_execute", note)
    uuid = (await pair.a.post_job(token)).json()["uuid"]
    await peer.receive()
    assert written == ["INSERT INTO job", "INSERT INTO job_status"]
    written.clear()
    assert await peer.status(uuid, "received") == SUCCESS
    assert written == ["UPDATE job SET", "INSERT INTO job_status"]


@pytest.mark.parametrize("body", [b"nonsense", b'{"message_type": "V0Heartbeat"}', b" " * 1_100_000])
async def test_an_answer_that_is_none_is_not_believed(body: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    replicas = HttpReplicas(lambda: "Bearer x", transport)
    link = LiveLink("l", "v", None, frozenset(), 1, "http://a", "owner", 0)
    question = V0ExplainJobRequest(job_uuid="j", request_id="r")
    assert await replicas.ask(link, question) is None
    assert await replicas.ask(replace(link, replica_url="http://[broken"), question) is None
    await replicas.close()


async def test_a_link_that_ends_while_it_is_renewed_stays_ended(pair: Pair, monkeypatch: Any) -> None:
    await pair.a.validator()
    facilitator, hotkey = pair.a.facilitator, one_hotkey(pair.a)
    renew = facilitator.registry.renew

    async def end_meanwhile(ids: Any) -> None:
        facilitator.presence.leave(facilitator.links.all()[0])
        await renew(ids)

    monkeypatch.setattr(facilitator.registry, "renew", end_meanwhile)
    await facilitator.desk.sweep()
    assert await pair.b.facilitator.board.live(hotkey) == []


async def test_places_of_another_instances_jobs_are_dropped(pair: Pair) -> None:
    one = await pair.a.validator(headers=instance("one"))
    two = await pair.b.validator(headers=instance("two"))
    token, uuid = await create(pair.a)
    await one.receive()
    queued = {"attempt": {"number": 1, "of": 3}, "queue": {"time_limit_s": 60, "position": 5, "length": 9}}
    assert await one.status(uuid, "queued", queued) == SUCCESS
    for peer, position in ((two, 1), (one, 4)):
        told = [{"job_uuid": uuid, "position": position, "length": 9}]
        await peer.send({"message_type": "V0QueueUpdate", "jobs": told})
        await nothing_came(peer)
        if peer is two:
            assert (await pair.b.job(uuid, token))["queue"]["position"] == 5
    assert (await pair.b.job(uuid, token))["queue"]["position"] == 4


async def test_what_another_replica_claims_first_is_not_pushed(pair: Pair, monkeypatch: Any) -> None:
    peer = await pair.a.validator(headers=instance("one"))
    handing = pair.a.facilitator.delivering._handing
    unconfirmed, claimed = handing.unconfirmed, asyncio.Event()

    async def read_then_lose(validator: str) -> Any:
        found = await unconfirmed(validator)
        if found and not claimed.is_set():
            await pair.b.facilitator.delivering._handing.claim(found, "x" * 32)
            claimed.set()
        return found

    monkeypatch.setattr(handing, "unconfirmed", read_then_lose)
    _, uuid = await create(pair.b)
    await asyncio.wait_for(claimed.wait(), 10)
    await nothing_came(peer)
    pair.a.facilitator.delivering.wake(one_hotkey(pair.a))  # that one has no live link, so it is free again
    assert (await peer.receive())["uuid"] == uuid

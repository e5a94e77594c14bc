"""A silent validator's job ends: gap G10. And the events that tell of it."""

import asyncio
import json
from typing import Any

from sqlalchemy import event

from compute_horde.chain.port import Directory
from compute_horde.facilitator.events import Events
from compute_horde.facilitator.facilitator import Facilitator
from compute_horde.protocol.problems import Problem

HELLO = b": connected\nretry: 500\nid: 0\n\n"
BUDGET = 7 + 3 + 300 + 5 + 5 + 10 + 7 + 300  # reservation, spin-up, startup, leeway, the limits, the margin


async def sent_job(bench: Any) -> tuple[Any, dict[str, str], str]:
    peer, token = await bench.validator(), await bench.login()
    uuid = (await bench.post_job(token)).json()["uuid"]
    await peer.receive()
    return peer, token, uuid


async def last_entry(bench: Any, uuid: str) -> dict[str, Any]:
    token = await bench.login()
    entry: dict[str, Any] = (await bench.job(uuid, token))["status_history"][-1]
    return entry


async def until_failed(bench: Any, uuid: str, token: dict[str, str]) -> None:
    for _ in range(500):
        if (await bench.job(uuid, token))["status"] == "Failed":
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the job was not given up")


async def test_a_silent_validators_job_is_given_up_g10(bench: Any) -> None:
    peer, _, uuid = await sent_job(bench)
    bench.clock.ahead += BUDGET - 5
    await bench.facilitator.supervisor.expire()
    assert (await last_entry(bench, uuid))["status"] == "sent"
    bench.clock.ahead += 10
    await bench.facilitator.supervisor.expire()
    entry = await last_entry(bench, uuid)
    assert entry["status"] == "horde_failed"
    details = entry["metadata"]["horde_failure_details"]
    assert (details["reported_by"], details["reason"]) == ("facilitator", "unhandled_timeout")
    found = Problem.from_context(details["context"], details["message"])
    assert found is not None
    assert (found.code, found.fault, found.retryable) == ("validator_silent", "validator", True)
    late = await peer.status(uuid, "received")
    assert late["errors"][0]["type"] == "job.integrity_error"


async def test_time_runs_anew_when_the_validator_takes_the_job_up(bench: Any) -> None:
    peer, _, uuid = await sent_job(bench)
    bench.clock.ahead += BUDGET - 5
    await peer.status(uuid, "received")
    bench.clock.ahead += BUDGET - 5
    await bench.facilitator.supervisor.expire()
    assert (await last_entry(bench, uuid))["status"] == "received"
    await peer.status(uuid, "accepted")
    bench.clock.ahead += 10
    await bench.facilitator.supervisor.expire()
    assert (await last_entry(bench, uuid))["status"] == "horde_failed"


async def test_a_job_that_ended_is_left_alone(bench: Any) -> None:
    peer, _, uuid = await sent_job(bench)
    await peer.status(uuid, "rejected")
    bench.clock.ahead += BUDGET * 2
    await bench.facilitator.supervisor.expire()
    assert (await last_entry(bench, uuid))["status"] == "rejected"


async def test_supervision_survives_a_restart(bench: Any) -> None:
    _, _, uuid = await sent_job(bench)
    bench.clock.ahead += BUDGET + 5
    again = Facilitator(bench.facilitator.settings, bench.chain, now=bench.clock)
    await again.open()
    token = await bench.login()
    await until_failed(bench, uuid, token)
    await again.close()


async def test_a_deadline_of_a_clock_that_was_ahead_is_brought_nearer(bench: Any) -> None:
    _, _, uuid = await sent_job(bench)
    store, year = bench.facilitator.store, 365 * 24 * 3600
    assert await store.bound_deadlines(bench.clock()) == 0
    assert await store.bound_deadlines(bench.clock() - year) == 1
    assert await store.next_deadline() < bench.clock() - year + 8 * 24 * 3600
    await bench.facilitator.supervisor.expire()
    assert (await last_entry(bench, uuid))["status"] == "horde_failed"


async def test_the_supervisor_wakes_for_a_nearer_deadline(bench: Any) -> None:
    await bench.validator()
    token = await bench.login()
    await bench.post_job(token, execution_time_limit=100_000)
    await asyncio.sleep(0.05)
    near = (await bench.post_job(token)).json()["uuid"]
    await asyncio.sleep(0.05)
    supervisor = bench.facilitator.supervisor
    assert supervisor._next - bench.clock() < BUDGET
    bench.clock.ahead += BUDGET + 1
    supervisor.note(0)
    token = await bench.login()
    await until_failed(bench, near, token)


def event_of(text: bytes) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in text.decode().strip().split("\n"))
    assert fields["event"] == "status"
    return {"id": int(fields["id"]), **json.loads(fields["data"])}


async def next_event(stream: Any) -> dict[str, Any]:
    while (text := await asyncio.wait_for(anext(stream), 5)).startswith(b":"):
        pass
    return event_of(text)


async def test_events_arrive_in_order_and_resume(bench: Any) -> None:
    events, token = bench.facilitator.events, await bench.login()
    session = bench.facilitator.login.session(token["Authorization"])
    stream = events.stream(session, await events.start_after(session, None))
    assert await anext(stream) == HELLO
    peer = await bench.validator()
    uuid = (await bench.post_job(token)).json()["uuid"]
    await peer.receive()
    await peer.status(uuid, "received")
    seen = [await next_event(stream) for _ in range(2)]
    assert [(event["job_uuid"], event["entry"]["status"]) for event in seen] == [
        (uuid, "sent"),
        (uuid, "received"),
    ]
    assert seen[0]["id"] < seen[1]["id"]
    await stream.aclose()
    resumed = events.stream(session, seen[0]["id"])
    assert await next_event(resumed) == seen[1]
    await resumed.aclose()
    fresh = events.stream(session, await events.start_after(session, None))
    await anext(fresh)
    assert await anext(fresh) == b": keep-alive\n\n"
    await fresh.aclose()


async def test_more_than_a_batch_of_events_is_not_cut(bench: Any) -> None:
    await bench.validator()
    token = await bench.login()
    for _ in range(55):
        await bench.post_job(token)
    session = bench.facilitator.login.session(token["Authorization"])
    stream = bench.facilitator.events.stream(session, 0)
    ids = [(await next_event(stream))["id"] for _ in range(55)]
    assert ids == sorted(set(ids))
    await stream.aclose()


async def test_events_are_the_users_own(bench: Any, bob: Any) -> None:
    await bench.validator()
    await bench.post_job(await bench.login())
    theirs = bench.facilitator.login.session((await bench.login(bob))["Authorization"])
    stream = bench.facilitator.events.stream(theirs, 0)
    assert [await anext(stream) for _ in range(2)] == [HELLO, b": keep-alive\n\n"]
    await stream.aclose()


async def test_a_stream_ends_with_its_login(bench: Any) -> None:
    session = bench.facilitator.login.session((await bench.login())["Authorization"])
    stream = bench.facilitator.events.stream(session, 0)
    await anext(stream)
    bench.chain.current = Directory()
    assert [text async for text in stream] == []


async def test_a_status_costs_one_query_for_each_stream_of_its_user(bench: Any, bob: Any) -> None:
    facilitator = bench.facilitator
    peer, token = await bench.validator(), await bench.login()
    uuids = [(await bench.post_job(token)).json()["uuid"] for _ in range(30)]
    hers, his = (facilitator.login.session(login["Authorization"]) for login in (token, await bench.login(bob)))
    events = Events(facilitator.store, facilitator.places, facilitator.streams, keep_alive_s=60)
    last = await events.start_after(hers, None)
    streams: list[Any] = [events.stream(hers, last) for _ in range(3)]
    streams += [events.stream(his, last) for _ in range(40)]
    asked: list[str] = []
    settled = asyncio.Event()

    def note(*args: Any) -> None:
        if "job_status.id >" in args[2]:
            asked.append(args[2])
        if len(asked) == len(streams):  # each looks once, then waits
            settled.set()

    event.listen(facilitator.database.engine.sync_engine, "before_cursor_execute", note)
    for stream in streams:
        await anext(stream)
    reading: list[asyncio.Task[bytes]] = [asyncio.create_task(anext(stream)) for stream in streams]
    for _ in range(30):
        await peer.receive()
    await settled.wait()
    asked.clear()
    await peer.status(uuids[7], "received")
    done = await asyncio.gather(*reading[:3])
    assert {event_of(text)["job_uuid"] for text in done} == {uuids[7]}
    assert len(asked) == 3
    facilitator.streams.close()
    await asyncio.gather(*reading, return_exceptions=True)
    for stream in streams:
        await stream.aclose()


async def test_statuses_reported_at_once_reach_a_stream_once_each_and_in_order(bench: Any) -> None:
    events, token = bench.facilitator.events, await bench.login()
    session = bench.facilitator.login.session(token["Authorization"])
    stream = events.stream(session, await events.start_after(session, None))
    await bench.validator()
    created = await asyncio.gather(*(bench.post_job(token) for _ in range(60)))
    seen = [await next_event(stream) for _ in range(60)]
    assert [one["id"] for one in seen] == list(range(1, 61))
    assert {one["job_uuid"] for one in seen} == {answer.json()["uuid"] for answer in created}
    await stream.aclose()


async def test_who_is_cut_off_before_the_first_event_misses_none(bench: Any) -> None:
    events, token = bench.facilitator.events, await bench.login()
    session = bench.facilitator.login.session(token["Authorization"])
    await bench.validator()
    await bench.post_job(token)
    stream = events.stream(session, await events.start_after(session, None))
    hello = dict(line.split(": ", 1) for line in (await anext(stream)).decode().split("\n")[1:3])
    await stream.aclose()
    uuid = (await bench.post_job(token)).json()["uuid"]
    resumed = events.stream(session, int(hello["id"]))
    assert (await next_event(resumed))["job_uuid"] == uuid
    await resumed.aclose()


async def test_a_stream_that_waits_ends_when_the_service_stops(bench: Any) -> None:
    session = bench.facilitator.login.session((await bench.login())["Authorization"])
    stream = bench.facilitator.events.stream(session, 0)
    await anext(stream)
    bench.facilitator.streams.close()
    assert [text async for text in stream] == []


async def test_bad_positions_are_400(bench: Any) -> None:
    token = await bench.login()
    for url, headers in (("?after=x", {}), ("?after=-1", {}), ("", {"Last-Event-ID": "x"})):
        answer = await bench.http.get(f"/api/v1/events/{url}", headers={**token, **headers})
        assert answer.status_code == 400
    assert (await bench.http.get("/api/v1/events/")).status_code == 401

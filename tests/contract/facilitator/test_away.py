"""The database is away or full: nothing is promised that is not stored, and nothing stored is forgotten."""

import asyncio
import contextlib
from typing import Any, NoReturn

import pytest

from compute_horde.facilitator import validator_session
from compute_horde.protocol.extensions import announcement
from compute_horde.storage.errors import DatabaseFull, DatabaseUnavailable

SUCCESS = {"status": "success", "errors": []}
INTERNAL = "job.internal_error"


def away(*_: Any) -> NoReturn:
    raise DatabaseUnavailable("away")


def full(*_: Any) -> NoReturn:
    raise DatabaseFull("no room")


def kinds(response: dict[str, Any]) -> list[str]:
    return [error["type"] for error in response["errors"]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: Any) -> None:
    monkeypatch.setattr(validator_session, "STORE_PAUSES", (0.01,))


async def test_what_cannot_be_stored_is_not_taken(bench: Any, ours: Any, monkeypatch: Any) -> None:
    peer, token = await bench.validator(headers=ours), await bench.login()
    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.database, "begin", full)
        answer = await bench.post_job(token)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert "database" in answer.json()["detail"]
        assert (await bench.http.get("/health/ready")).status_code == 200  # it can still be read
    assert kinds(await peer.status("x", "received")) == ["job.not_found"]  # and nothing was pushed
    assert (await bench.http.get("/api/v1/jobs/", headers=token)).json()["count"] == 0


async def test_reads_are_503(bench: Any, monkeypatch: Any) -> None:
    token = await bench.login()
    uuid = "11111111-1111-4111-8111-111111111111"
    paths = ("jobs/", f"jobs/{uuid}/", f"jobs/{uuid}/explanation/", f"jobs/{uuid}/logs/", "events/")
    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.database, "read", away)
        for path in paths:
            answer = await bench.http.get(f"/api/v1/{path}", headers=token)
            assert (path, answer.status_code, answer.headers["Retry-After"]) == (path, 503, "5")
        assert (await bench.http.get("/health/ready")).status_code == 503


async def test_a_job_whose_commit_went_unheard_is_delivered(bench: Any, ours: Any, monkeypatch: Any) -> None:
    peer, token = await bench.validator(headers=ours), await bench.login()
    create = bench.facilitator.store.create

    async def stored_but_unheard(*args: Any) -> None:
        await create(*args)
        raise DatabaseUnavailable("the connection was lost")

    body = bench.body()
    headers = {**token, **bench.sign(body)}
    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.store, "create", stored_but_unheard)
        assert (await bench.http.post("/api/v1/job-docker/", json=body, headers=headers)).status_code == 503
    pushed = (await peer.receive())["uuid"]
    again = await bench.http.post("/api/v1/job-docker/", json=body, headers=headers)
    assert (again.status_code, again.json()["uuid"]) == (201, pushed)
    assert kinds(await peer.status("x", "received")) == ["job.not_found"]  # once


async def test_a_status_is_tried_again_and_then_asked_for_again(bench: Any, ours: Any, monkeypatch: Any) -> None:
    peer, token = await bench.validator(headers=ours), await bench.login()
    uuid = (await bench.post_job(token)).json()["uuid"]
    await peer.receive()
    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.database, "begin", away)
        assert kinds(await peer.status(uuid, "received")) == [INTERNAL]
    add, asked = bench.facilitator.store.add_status, []

    async def away_at_first(*args: Any) -> Any:
        asked.append(args)
        if len(asked) == 1:
            raise DatabaseUnavailable("away")
        return await add(*args)

    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.store, "add_status", away_at_first)
        assert await peer.status(uuid, "received") == SUCCESS
    assert len(asked) == 2


async def test_a_validator_that_comes_meanwhile_is_asked_to_come_later(
    bench: Any, validator_key: Any, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.database, "begin", away)
        peer = bench.dial()
        with pytest.raises(Exception, match="1013"):
            await peer.authenticate(validator_key)
        await peer.serving
    assert bench.facilitator.links.all() == []


async def test_a_link_ends_in_order_without_the_database(bench: Any, ours: Any, monkeypatch: Any) -> None:
    peer = await bench.validator(headers=ours)
    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.database, "begin", away)
        await peer.hang_up()
    assert bench.facilitator.links.all() == []


async def test_a_job_whose_link_is_lost_at_the_last_moment_is_taken_all_the_same(
    bench: Any, ours: Any, monkeypatch: Any
) -> None:
    await bench.validator(headers=ours)
    token, facilitator = await bench.login(), bench.facilitator
    create = facilitator.store.create

    async def lose_both(*args: Any) -> Any:
        stored = await create(*args)
        facilitator.links.remove(facilitator.links.all()[0])
        monkeypatch.setattr(facilitator.database, "begin", away)
        return stored

    with monkeypatch.context() as patch:
        patch.setattr(facilitator.store, "create", lose_both)
        answer = await bench.post_job(token)
    monkeypatch.undo()
    assert answer.status_code == 201
    again = await bench.validator(headers=ours)
    assert (await again.receive())["uuid"] == answer.json()["uuid"]


async def test_a_stream_ends_and_the_client_comes_back(bench: Any, monkeypatch: Any) -> None:
    token = {**await bench.login(), **announcement()}
    with monkeypatch.context() as patch:

        async def lost(*_: Any) -> None:
            raise DatabaseUnavailable("away")

        patch.setattr(bench.facilitator.store, "events_after", lost)
        answer = await asyncio.wait_for(bench.http.get("/api/v1/events/", headers=token), 5)
    assert (answer.status_code, answer.text) == (200, ": connected\nretry: 500\nid: 0\n\n")


async def test_the_sweep_survives(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("compute_horde.facilitator.facilitator.SWEEP_SECONDS", 0.001)
    failed = asyncio.Event()

    async def lost() -> None:
        if failed.is_set():
            raise asyncio.CancelledError
        failed.set()
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(bench.facilitator.desk, "sweep", lost)
    with contextlib.suppress(asyncio.CancelledError):
        await bench.facilitator._sweep()
    assert failed.is_set()


async def test_supervision_goes_on_when_the_database_is_back(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("compute_horde.facilitator.supervision.RETRY_SECONDS", 0.001)
    supervisor, store = bench.facilitator.supervisor, bench.facilitator.store
    overdue, asked, back = store.overdue, 0, asyncio.Event()

    async def away_at_first(clock: float) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise DatabaseUnavailable("away")
        back.set()
        return await overdue(clock)

    monkeypatch.setattr(store, "overdue", away_at_first)
    running = asyncio.create_task(supervisor.run())
    await asyncio.wait_for(back.wait(), 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

"""What an operator sees of a facilitator: real jobs and refusals, counted once each; health."""

import asyncio
import json
from typing import Any, NoReturn

import pytest
import structlog
from sqlalchemy import update
from tests.contract.facilitator.bench import ALICE, OTHER, VALIDATOR, Bench, open_bench

from compute_horde.facilitator import validator_session
from compute_horde.facilitator.facilitator import Facilitator
from compute_horde.facilitator.tables import links
from compute_horde.lifecycle.failures import problem
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.telemetry.facilitator import FacilitatorMetrics

REFUSED = 'events_refused_total{reason="%s"}'
RESULT = {"miner_response": {"docker_process_stdout": "", "docker_process_stderr": ""}}


def away(*_: Any) -> NoReturn:
    raise DatabaseUnavailable("away")


def stage(name: str, what: str = "count") -> str:
    return f'stage_duration_seconds_{what}{{executor_class="always_on.test",stage="{name}"}}'


def ended(state: str, fault: str) -> str:
    return f'jobs_ended_total{{fault="{fault}",state="{state}"}}'


def failure(code: str) -> dict[str, Any]:
    found = problem(code, "it failed")
    return {"job_failure_details": _details(found.to_context())}


def _details(context: Any) -> dict[str, Any]:
    return {"reason": "UNKNOWN", "stage": "execution", "message": "it failed", "context": context}


async def create(bench: Bench, token: dict[str, str], **changes: Any) -> str:
    answer = await bench.post_job(token, **changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["uuid"])


async def test_a_job_is_counted_stage_by_stage(bench: Bench, ours: Any) -> None:
    peer, token = await bench.validator(headers=ours), await bench.login()
    uuid = await create(bench, token)
    await peer.receive()
    bench.clock.ahead = 20
    waiting = await bench.figures()
    assert (waiting['jobs{state="sent"}'], waiting["validators"]) == (1, 1)
    assert 20 <= waiting["undelivered_age_seconds"] < 25
    assert waiting["database_bytes"] > 10_000
    for status in ("received", "accepted", "executor_ready", "volumes_ready", "execution_done"):
        await peer.status(uuid, status)
        bench.clock.ahead += 100
    assert (await bench.figures())['jobs{state="execution_done"}'] == 1
    await peer.status(uuid, "completed", RESULT)
    figures = await bench.figures()
    names = ("hand_over", "routing", "executor_startup", "volume_download", "execution", "result_upload")
    assert [figures[stage(name)] for name in names] == [1] * 6
    assert 20 <= figures[stage("hand_over", "sum")] < 25
    assert 100 <= figures[stage("execution", "sum")] < 105
    assert figures[ended("completed", "none")] == 1
    assert 520 <= figures['job_duration_seconds_sum{state="completed"}'] < 530
    assert not [name for name in figures if name.startswith(("jobs{", "undelivered", "events_refused"))]


@pytest.mark.parametrize(
    ("status", "metadata", "fault"),
    [
        ("failed", failure("nonzero_exit"), "user"),
        ("failed", {"job_failure_details": _details(None)}, "nobody"),
        (
            "horde_failed",
            {
                "horde_failure_details": {
                    "reported_by": "validator",
                    "reason": "generic_error",
                    "message": "m",
                    "context": problem("executor_late", "late").to_context(),
                }
            },
            "miner",
        ),
        ("failed", None, "none"),
    ],
)
async def test_failures_are_counted_by_fault(bench: Bench, status: str, metadata: Any, fault: str) -> None:
    peer, token = await bench.validator(), await bench.login()
    uuid = await create(bench, token)
    await peer.receive()
    assert (await peer.status(uuid, status, metadata))["status"] == "success"
    assert (await bench.figures())[ended(status, fault)] == 1


async def test_what_the_facilitator_ends_itself_is_counted(bench: Bench) -> None:
    peer, token = await bench.validator(), await bench.login()
    cancelled, silent = await create(bench, token), await create(bench, token)
    await peer.receive()
    await peer.receive()
    await bench.http.post(f"/api/v1/jobs/{cancelled}/cancel/", headers=token)
    bench.clock.ahead = 100_000
    await bench.facilitator.supervisor.expire()
    assert (await bench.job(silent, await bench.login()))["status_history"][-1]["status"] == "horde_failed"
    figures = await bench.figures()
    assert figures[ended("cancelled", "user")] == 1
    assert figures[ended("horde_failed", "validator")] == 1
    assert figures[stage("hand_over")] == 2


async def test_the_class_of_a_job_created_elsewhere_is_read(bench: Bench, monkeypatch: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    first, second = await create(bench, token), await create(bench, token)
    counting = bench.facilitator._counting
    counting._classes.clear()
    await peer.receive()
    await peer.receive()
    await peer.status(first, "received")
    await peer.status(first, "accepted")
    assert list(counting._classes) == [first]
    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.store, "request_head", away)
        assert (await peer.status(second, "received"))["status"] == "success"
    figures = await bench.figures()
    assert (figures[stage("hand_over")], figures[stage("routing")]) == (1, 1)


async def test_refused_reports(bench: Bench) -> None:
    peer, token = await bench.validator(), await bench.login()
    uuid = await create(bench, token)
    await peer.receive()
    await peer.status(uuid, "accepted")
    await peer.status(uuid, "accepted")
    await peer.status(uuid, "received")
    await peer.status(uuid, "completed")  # without a result
    await peer.status(uuid, "unknown")
    await peer.status("11111111-1111-4111-8111-111111111111", "received")
    await peer.ask("no json")
    stranger = bench.dial()
    await stranger.status(uuid, "received")
    figures = await bench.figures()
    assert {name: n for name, n in figures.items() if name.startswith("events_refused")} == {
        REFUSED % "repeated": 1,
        REFUSED % "illegal_transition": 1,
        REFUSED % "malformed": 3,
        REFUSED % "unknown_job": 1,
        REFUSED % "login": 1,
    }


async def test_a_claim_of_another_instance_is_not_ours(bench: Bench, ours: Any) -> None:
    peers = [await bench.validator(headers={**ours, "X-CH-Instance": name}) for name in ("a", "b")]
    uuid = await create(bench, await bench.login())
    await peers[0].status(uuid, "received")
    await peers[1].receive()
    await peers[1].status(uuid, "received")
    assert (await bench.figures())[REFUSED % "not_ours"] == 1


async def test_refused_validators(bench: Bench) -> None:
    await bench.dial().authenticate(ALICE)
    bad = {"message_type": "V0AuthenticationRequest", "signature": "00" * 64}
    await bench.dial().ask({**bad, "public_key": bytes(VALIDATOR.public_key).hex()})
    await bench.dial().ask({**bad, "public_key": "no hex"})
    figures = await bench.figures()
    assert [figures[REFUSED % why] for why in ("forbidden", "signature", "malformed")] == [1, 1, 1]


async def test_refused_requests(bench: Bench) -> None:
    token = await bench.login()
    await bench.validator()
    body = bench.body()
    path = "/api/v1/job-docker/"
    again = bench.sign(body)
    await bench.http.post(path, json=body, headers={**token, **again})
    await bench.http.post(path, json=body, headers={**token, **again})
    await bench.http.post(path, json=body, headers={**token, **bench.sign(body, ago_s=900)})
    await bench.http.post(path, json=body, headers={**token, **bench.sign(bench.body(tag="x", use_gpu=False))})
    await bench.http.post(path, json={}, headers={**token, **again})
    await bench.http.post(path, content=b"x" * 4_000_000, headers=token)
    await bench.post_job(token, target_validator_hotkey=OTHER.ss58_address)
    await bench.http.get("/api/v1/jobs/")
    await bench.http.get("/nowhere")
    figures = await bench.figures()
    assert {name: n for name, n in figures.items() if name.startswith("events_refused")} == {
        REFUSED % "repeated": 1,
        REFUSED % "stale": 1,
        REFUSED % "signature": 1,
        REFUSED % "malformed": 1,
        REFUSED % "too_large": 1,
        REFUSED % "login": 1,
        REFUSED % "other": 2,
    }


async def test_logins_and_streams(bench: Bench) -> None:
    token = await bench.login()
    await bench.http.post("/auth/login", json={"hotkey": "5X", "signature": "00", "nonce": "?"})
    session = bench.facilitator.login.session(token["Authorization"])
    stream = bench.facilitator.events.stream(session, 0)
    await anext(stream)
    figures = await bench.figures()
    assert (figures['logins_total{outcome="ok"}'], figures['logins_total{outcome="refused"}']) == (1, 1)
    assert figures["event_streams"] == 1
    await stream.aclose()
    assert "event_streams" not in await bench.figures()


async def test_a_validator_that_comes_back_is_a_reconnect(bench: Bench) -> None:
    first = await bench.validator()
    second = await bench.validator()  # beside it: nothing was lost
    assert 'reconnects_total{peer="validator"}' not in await bench.figures()
    await second.hang_up()
    await bench.validator()
    assert (await bench.figures())['reconnects_total{peer="validator"}'] == 1
    await first.hang_up()


async def test_links_of_a_dead_replica_are_taken_over(bench: Bench) -> None:
    await bench.validator()
    link = bench.facilitator.links.all()[0]
    dead = {"lease_owner": "owner-dead", "lease_until": 0.0}
    async with bench.facilitator.database.begin() as connection:
        await connection.execute(update(links).where(links.c.id == link.id).values(**dead))
    bench.facilitator.links.remove(link)
    await bench.facilitator.presence.renew()
    assert (await bench.figures())["leases_taken_over_total"] == 1


async def test_the_database_away_and_back_is_one_reconnect(bench: Bench, monkeypatch: Any) -> None:
    monkeypatch.setattr(validator_session, "STORE_PAUSES", (0.01,))
    peer, token = await bench.validator(), await bench.login()
    uuid = await create(bench, token)
    await peer.receive()
    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.database, "begin", away)
        patch.setattr(bench.facilitator.database, "read", away)
        assert (await bench.http.get("/api/v1/jobs/", headers=token)).status_code == 503
        assert (await peer.status(uuid, "received"))["status"] == "error"
        ready = await bench.http.get("/health/ready")
        blind = await bench.figures()
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert ready.json()["checks"]["database"]["why"] == "DatabaseUnavailable"
    assert blind['sample_errors_total{metric="compute_horde_facilitator_jobs"}'] == 1
    assert not [name for name in blind if name.startswith("jobs{")]
    await peer.status(uuid, "received")
    await peer.status(uuid, "accepted")
    assert (await bench.figures())['reconnects_total{peer="database"}'] == 1
    assert (await bench.http.get("/health/ready")).status_code == 200


async def test_records_name_their_job_and_peer(bench: Bench) -> None:
    peer, token = await bench.validator(), await bench.login()
    uuid, late = await create(bench, token), await create(bench, token)
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as records:
        await peer.status(uuid, "accepted")
        await peer.receive()
        await peer.status(uuid, "received")
        bench.clock.ahead = 100_000
        await bench.facilitator.supervisor.expire()
        await bench.dial().authenticate(ALICE)
    named = {(one["event"], one.get("job")): one for one in records}
    for event, job in (("status refused", uuid), ("job ended by the facilitator", late)):
        assert named[event, job]["peer"] == VALIDATOR.ss58_address
    assert named["job ended by the facilitator", late]["attempt"] == 1


async def test_it_lives_while_all_its_parts_do(bench: Bench) -> None:
    assert (await bench.http.get("/health/live")).status_code == 200
    ended = bench.facilitator._tasks[0]
    ended.cancel()
    await asyncio.gather(ended, return_exceptions=True)
    live = await bench.http.get("/health/live")
    assert (live.status_code, live.json()["checks"]["tasks"]["status"]) == (503, "failed")


async def test_metrics_are_on_the_main_port_only_with_a_token(bench: Bench, tmp_path: Any) -> None:
    assert (await bench.http.get("/metrics")).status_code == 404
    url = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    async with open_bench(url, operations_token="t0ken") as open_one:
        assert (await open_one.http.get("/metrics")).status_code == 401
        answer = await open_one.http.get("/metrics", headers={"Authorization": "Bearer t0ken"})
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
        assert "compute_horde_facilitator_build_info" in answer.text
        assert "/metrics" not in json.dumps((await open_one.http.get("/schema/openapi.json")).json())


async def test_one_registry_for_each_facilitator(bench: Bench) -> None:
    mine = FacilitatorMetrics()
    made = Facilitator(bench.facilitator.settings, bench.chain, metrics=mine)
    assert made.metrics is mine
    await made.database.close()

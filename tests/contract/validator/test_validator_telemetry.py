"""What operators see of a validator: every figure is fed by what really happens."""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest
from compute_horde.protocol.enums import Participant, RejectionReason
from compute_horde.protocol.facilitator_validator import CLAIMED_ELSEWHERE, Response
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.validator.counting import Counting
from compute_horde.validator.rows import Job
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.testing.crashing import crash
from compute_horde.validator.testing.crowded import CrowdedMiner
from compute_horde.validator.testing.scripted import MinerConnection, job_request, running
from compute_horde.validator.testing.world import (
    JOB,
    MINER,
    OTHER,
    STRANGER,
    USER,
    World,
    ending,
    finish,
    make_ready,
    never_accepts,
    silence,
    whole_job,
)

LONG = {"execution_time_limit": 30, "download_time_limit": 30, "upload_time_limit": 30}
CLASS = {"executor_class": "always_on.test"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.limits |= {"retry_backoff": 0, "attempts": 1, "queue_time_limit": 0}
    return made


def figure(validator: ValidatorService, name: str, **labels: str) -> float:
    """Zero where there is no such sample."""
    found = validator.metrics.registry.get_sample_value(f"compute_horde_validator_{name}", labels)
    return 0.0 if found is None else found


def has_refused(validator: ValidatorService, reason: str, times: int) -> bool:
    return figure(validator, "events_refused_total", reason=reason) >= times


async def look(validator: ValidatorService) -> None:
    """Read what is read when somebody looks, however fresh it is."""
    await validator.metrics._refresh()


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not is_true():  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0)


async def run(world: World, status: str, **changes: Any) -> ValidatorService:
    """One job, to this status; the validator has stopped."""
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **changes))
        await world.facilitator.wait_for(JOB, status)
        await until(lambda: not validator._live.drivers())
    return validator


async def test_a_job_is_counted_where_it_goes_and_where_it_ends(world: World) -> None:
    world.miner(whole_job)
    validator = await run(world, "completed")
    assert figure(validator, "jobs_ended_total", state="completed", fault="none") == 1
    assert figure(validator, "job_duration_seconds_count", state="completed") == 1
    assert figure(validator, "tries_total", outcome="accepted") == 1
    assert figure(validator, "attempts_total", outcome="completed", fault="none") == 1
    stages = ("routing", "executor_startup", "volume_download", "execution", "result_upload")
    for stage in stages:
        assert figure(validator, "stage_duration_seconds_count", stage=stage, **CLASS) == 1
    assert b"events_refused_total{" not in await validator.metrics.render()
    assert validator._tools.counting._since == {}


@pytest.mark.parametrize(
    ("script", "limit", "outcome"),
    [(never_accepts, "reservation_limit", "silent"), (silence, "miner_connect_limit", "unreachable")],
)
async def test_a_miner_that_does_not_answer_is_counted(
    world: World, script: Any, limit: str, outcome: str
) -> None:
    world.limits |= {limit: 0.05}
    world.miner(script)
    validator = await run(world, "horde_failed")
    assert figure(validator, "tries_total", outcome=outcome) == 1
    assert figure(validator, "jobs_ended_total", state="horde_failed", fault="miner") == 1
    assert b"attempts_total{" not in await validator.metrics.render()


@pytest.mark.parametrize(
    ("reason", "outcome"), [(RejectionReason.BUSY, "busy"), (RejectionReason.INVALID_SIGNATURE, "declined")]
)
async def test_a_miner_that_says_no_is_counted(world: World, reason: RejectionReason, outcome: str) -> None:
    async def declines(miner: MinerConnection) -> None:
        await never_accepts(miner)
        await miner.send(vm.V0DeclineJobRequest(job_uuid=JOB, reason=reason, message="no"))

    world.miner(declines)
    validator = await run(world, "rejected")
    assert figure(validator, "tries_total", outcome=outcome) == 1


async def test_a_miner_that_fails_before_it_accepts_has_declined(world: World) -> None:
    broken = to_wire(problem("engine_unavailable", "no engine"), JOB, reported_by=Participant.EXECUTOR)
    world.miner(ending(broken, never_accepts))
    validator = await run(world, "horde_failed")
    assert figure(validator, "tries_total", outcome="declined") == 1


async def test_a_failed_attempt_is_counted_by_whose_fault_it_was(world: World) -> None:
    broken = to_wire(problem("engine_unavailable", "no engine"), JOB, reported_by=Participant.EXECUTOR)
    world.miner(ending(broken))
    validator = await run(world, "horde_failed")
    assert figure(validator, "attempts_total", outcome="horde_failed", fault="miner") == 1
    assert figure(validator, "jobs_ended_total", state="horde_failed", fault="miner") == 1


async def test_what_waits_is_seen_while_it_waits(world: World) -> None:
    world.miner(CrowdedMiner(0).script)
    validator = world.validator(queue_time_limit=60)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "queued")
        await look(validator)
        assert figure(validator, "queued_jobs", **CLASS) == 1
        assert 0 < figure(validator, "queue_age_seconds", **CLASS) < 60
        assert figure(validator, "jobs", state="queued") == 1
        assert figure(validator, "facilitator_connected") == 1
        assert figure(validator, "database_bytes") > 10_000
        world.facilitator.silent = True
        await world.facilitator.push(V0CancelJobRequest(job_uuid=JOB))
        await world.facilitator.wait_for(JOB, "failed")
        await until(lambda: not validator._live.drivers())
        await look(validator)
        assert figure(validator, "outbox_messages") == 1
        assert figure(validator, "queued_jobs", **CLASS) == 0
        await world.facilitator.unplug()
        await until(lambda: not validator.connected.is_set())
        await look(validator)
        assert figure(validator, "facilitator_connected") == 0
    assert figure(validator, "stage_duration_seconds_count", stage="queue", **CLASS) == 1
    assert figure(validator, "jobs_ended_total", state="cancelled", fault="user") == 1


async def test_links_that_come_back_are_counted(world: World) -> None:
    async def leaves(miner: MinerConnection) -> None:
        await make_ready(miner)
        await miner.channel.close(1006)

    async def again(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await finish(miner, (await miner.expect(vm.V0JobRequest)).job_uuid)

    world.miner(leaves, again)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "completed")
        assert figure(validator, "reconnects_total", peer="facilitator") == 0
        await world.facilitator.drop()
        await world.facilitator.until(lambda: len(world.facilitator.authentications) == 2)
        await until(lambda: figure(validator, "reconnects_total", peer="facilitator"))
    assert figure(validator, "reconnects_total", peer="miner") == 1
    assert figure(validator, "reconnects_total", peer="facilitator") == 1


async def test_a_database_that_comes_back_is_counted_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise DatabaseUnavailable("away")

    world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        monkeypatch.setattr(validator._database, "begin", refuse)
        for uuid in (JOB, OTHER):
            await world.facilitator.push(job_request(uuid, USER))
        for _ in range(50):
            await asyncio.sleep(0)
        monkeypatch.undo()
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed")
    assert figure(validator, "reconnects_total", peer="database") == 1


async def test_a_look_for_work_that_fails_counts_as_an_outage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Any:
        raise DatabaseUnavailable("away")

    validator = world.validator()
    validator._keeper._look_s = 0
    async with running(validator):
        await validator.connected.wait()
        monkeypatch.setattr(validator._database, "read", refuse)
        await until(lambda: validator._keeper._outages._away)
        monkeypatch.undo()
        await until(lambda: figure(validator, "reconnects_total", peer="database"))
    assert figure(validator, "reconnects_total", peer="database") == 1


async def test_what_a_dead_process_had_is_counted(world: World) -> None:
    world.miner(make_ready, whole_job)
    dead, heir = world.validator(), world.validator()
    await dead.start()
    await dead.connected.wait()
    await world.facilitator.push(job_request(JOB, USER, **LONG))
    await world.facilitator.wait_for(JOB, "executor_ready")
    await crash(dead)
    async with running(heir):
        assert figure(heir, "leases_taken_over_total") == 1


async def test_what_is_not_acted_upon_is_counted_by_its_reason(world: World) -> None:
    miner = CrowdedMiner(1)
    world.miner(miner.script)
    validator = world.validator()
    good = job_request(JOB, USER, **LONG)
    sent: dict[str, list[Any]] = {
        "malformed": ["{}", job_request("no-uuid", USER)],
        "forbidden": [job_request(OTHER, STRANGER)],
        "stale": [job_request("33333333-3333-4333-8333-333333333333", USER, timestamp_ns=1)],
        "signature": [
            job_request("44444444-4444-4444-8444-444444444444", USER).model_copy(update={"docker_image": "evil"})
        ],
        "repeated": [good],
        "unknown_job": [
            V0CancelJobRequest(job_uuid="55555555-5555-4555-8555-555555555555"),
            V0JobLogsRequest(job_uuid="x", request_id="a", position=0),
        ],
    }
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(good)
        await world.facilitator.wait_for(JOB, "executor_ready")
        for messages in sent.values():
            for message in messages:
                await world.facilitator.push(message)
        for reason, messages in sent.items():
            await until(functools.partial(has_refused, validator, reason, len(messages)))
            assert not has_refused(validator, reason, len(messages) + 1)
        assert figure(validator, "jobs_ended_total", state="rejected", fault="user") == 3
        miner.finish(JOB)
        await world.facilitator.wait_for(JOB, "completed")


async def test_what_a_miner_says_out_of_place_is_counted(world: World) -> None:
    async def babbles(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        ready = vm.V0ExecutorReadyRequest(job_uuid=job)
        await miner.send("{}", ready, ready.model_copy(update={"job_uuid": OTHER}))
        await miner.expect(vm.GenericError)
        await finish(miner, job)

    miner = world.miner(babbles)
    validator = await run(world, "completed", **LONG)
    assert not miner.errors
    for reason in ("malformed", "illegal_transition", "unknown_job"):
        assert figure(validator, "events_refused_total", reason=reason) == 1


async def test_a_job_of_another_instance_and_a_lost_lease_are_counted(world: World) -> None:
    world.miner(CrowdedMiner(1).script)
    world.facilitator.answers["received"] = Response.error(CLAIMED_ELSEWHERE, "another's")
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await until(lambda: figure(validator, "events_refused_total", reason="not_ours"))
        world.facilitator.answers.clear()
        await world.facilitator.push(job_request(OTHER, USER, **LONG))
        await world.facilitator.wait_for(OTHER, "executor_ready")
        async with validator._database.begin() as connection:
            await connection.execute(sa.text("UPDATE jobs SET lease_owner = 'x', lease_until = 1e12"))
        await validator._keeper.renew()
        await until(lambda: not validator._live.drivers())
        assert figure(validator, "events_refused_total", reason="stale_claim") == 1
        assert validator._tools.counting._since == {}


async def test_it_is_ready_while_the_facilitator_and_the_database_are_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Any:
        raise DatabaseUnavailable("postgresql://user:secret@host is away")

    validator = world.validator()
    await world.facilitator.unplug()
    async with running(validator):
        report = (await validator.health.ready()).to_json()
        assert report["checks"]["facilitator"]["status"] == "failed"
        assert report["checks"]["database"]["status"] == "ok"
        world.facilitator.plug()
        await validator.connected.wait()
        assert (await validator.health.ready()).ok
        monkeypatch.setattr(validator._database, "read", refuse)
        report = (await validator.health.ready()).to_json()
        assert report["checks"]["database"]["why"] == "DatabaseUnavailable"
        assert (await validator.health.live()).ok
        monkeypatch.undo()
    assert validator.operations.port is None


async def test_records_name_the_job_the_attempt_and_its_miner(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.miner(whole_job)
    await run(world, "completed")
    accepted = next(line for line in capsys.readouterr().out.splitlines() if "status=accepted" in line)
    assert "attempt=1" in accepted
    assert f"job={JOB}" in accepted
    assert f"peer={MINER.ss58_address}" in accepted


def test_a_stage_whose_beginning_was_not_seen_is_not_counted(world: World) -> None:
    validator = world.validator()
    counting = Counting(validator.metrics, clock=iter([10.0, 25.0]).__next__)
    job = Job(job_request(JOB, USER), JobState.ACCEPTED, 0.0)
    ready, volumes = replace(job, state=JobState.EXECUTOR_READY), replace(job, state=JobState.VOLUMES_READY)
    counting.moved(job, job)
    counting.moved(job, ready)
    counting.moved(ready, volumes)
    assert figure(validator, "stage_duration_seconds_count", stage="executor_startup", **CLASS) == 0
    assert figure(validator, "stage_duration_seconds_sum", stage="volume_download", **CLASS) == 15

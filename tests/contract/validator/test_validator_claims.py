"""A job belongs to one instance of a validator, and one process of it drives it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest
from compute_horde.protocol.extensions import LINK_EXTENSIONS, Extension
from compute_horde.protocol.facilitator_validator import CLAIMED_ELSEWHERE, HEADER_INSTANCE, Response
from compute_horde.storage.errors import DatabaseFull, DatabaseUnavailable
from compute_horde.validator import facilitator_link, live, quest
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.testing.crashing import crash
from compute_horde.validator.testing.crowded import CrowdedMiner
from compute_horde.validator.testing.scripted import MinerConnection, job_request, running
from compute_horde.validator.testing.world import (
    JOB,
    OTHER,
    USER,
    WHOLE,
    World,
    finish,
    make_ready,
    never_executes,
    whole_job,
)

LONG = {"execution_time_limit": 30, "download_time_limit": 30, "upload_time_limit": 30}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def offered(world: World) -> int:
    return sum(isinstance(m, vm.V0InitialJobRequest) for miner in world.miners for m in miner.seen)


async def test_an_instance_has_one_name_for_ever(world: World) -> None:
    for _ in range(2):
        validator = world.validator()
        async with running(validator):
            await validator.connected.wait()
    first, second = (headers[HEADER_INSTANCE] for headers in world.facilitator.headers)
    assert first == second
    assert len(first) == 36


async def test_no_miner_is_asked_before_the_job_is_ours(world: World) -> None:
    world.miner(whole_job)
    world.facilitator.silent = True
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "received")
        await turns()
        assert len(world.miners[0].urls) == 1  # dialled meanwhile
        assert offered(world) == 0
        world.facilitator.silent = False
        assert world.facilitator.channel is not None
        await world.facilitator.push(Response(status="success"))
        await world.facilitator.wait_for(JOB, "completed")
    assert world.facilitator.history(JOB) == WHOLE


async def test_a_facilitator_without_claims_is_not_waited_for(world: World) -> None:
    world.miner(whole_job)
    world.facilitator.extensions = LINK_EXTENSIONS - {Extension.CLAIMS}
    world.facilitator.plug()
    world.facilitator.silent = True
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await asyncio.wait_for(until_offered(world), 5)


async def until_offered(world: World) -> None:
    while not offered(world):  # noqa: ASYNC110 - nothing else tells of it
        await asyncio.sleep(0)


async def test_a_job_of_another_instance_is_dropped_without_a_word(world: World) -> None:
    world.miner(whole_job)
    world.facilitator.answers["received"] = Response.error(CLAIMED_ELSEWHERE, "it is another's")
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "received")
        async with asyncio.timeout(5):
            while await validator._store.unfinished():
                pass
        world.facilitator.answers.clear()
        await world.facilitator.push(job_request(OTHER, USER))
        await world.facilitator.wait_for(OTHER, "completed")
    assert world.facilitator.history(JOB) == ["received"]
    assert offered(world) == 1


async def test_a_status_that_the_facilitator_could_not_store_is_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facilitator_link, "AGAIN_SECONDS", 0.01)
    world.miner(whole_job)
    world.facilitator.answers["received"] = Response.error(facilitator_link.AGAIN, "the disk is full")
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.until(lambda: world.facilitator.history(JOB).count("received") == 3)
        assert offered(world) == 0
        world.facilitator.answers.clear()
        await world.facilitator.wait_for(JOB, "completed")


async def test_a_process_takes_over_from_one_that_was_killed(world: World) -> None:
    async def first(miner: MinerConnection) -> None:
        await never_executes(miner)
        await miner.channel.receive()

    async def second(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await finish(miner, JOB)

    world.miner(first, second)
    dead, heir = world.validator(), world.validator()
    await dead.start()
    await dead.connected.wait()
    await world.facilitator.push(job_request(JOB, USER, **LONG))
    await world.facilitator.wait_for(JOB, "volumes_ready")
    async with running(heir):
        await turns()
        assert heir._live.under_way() == []  # the other one lives
        await crash(dead)
        await world.facilitator.wait_for(JOB, "completed")
    assert list(dict.fromkeys(world.facilitator.history(JOB))) == WHOLE


async def test_who_has_lost_a_lease_writes_and_sends_nothing(world: World) -> None:
    go_on = asyncio.Event()

    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await go_on.wait()
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job))
        await miner.channel.receive()

    world.miner(script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "executor_ready")
        async with validator._database.begin() as connection:
            await connection.execute(sa.text("UPDATE jobs SET lease_owner = 'somebody', lease_until = 1e12"))
        go_on.set()
        async with asyncio.timeout(5):
            while validator._live.under_way():  # noqa: ASYNC110 - nothing else tells of it
                await asyncio.sleep(0)
        job = await validator._store.job(JOB)
    assert job is not None
    assert job.state is JobState.EXECUTOR_READY
    assert world.facilitator.history(JOB) == WHOLE[:3]


async def test_a_job_that_was_changed_behind_its_drivers_back_goes_on_from_its_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "ANEW_SECONDS", 0)
    go_on = asyncio.Event()

    async def first(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await go_on.wait()
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job))
        await miner.channel.receive()

    async def second(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.send(vm.V0ExecutorReadyRequest(job_uuid=JOB))
        await miner.expect(vm.V0JobRequest)
        await finish(miner, JOB)

    miner = world.miner(first, second)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "executor_ready")
        async with validator._database.begin() as connection:
            await connection.execute(sa.text("UPDATE jobs SET state = 'accepted'"))
        go_on.set()
        await world.facilitator.wait_for(JOB, "completed")
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert not miner.errors


async def test_renewing_drops_what_is_lost_and_keeps_the_rest(world: World) -> None:
    miner = CrowdedMiner(2)
    world.miner(miner.script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        for uuid in (JOB, OTHER):
            await world.facilitator.push(job_request(uuid, USER, **LONG))
            await world.facilitator.wait_for(uuid, "executor_ready")
        async with validator._database.begin() as connection:
            await connection.execute(
                sa.text("UPDATE jobs SET lease_owner = 'x', lease_until = 1e12 WHERE uuid = :job"), {"job": JOB}
            )
        await validator._keeper.renew()
        await turns()
        assert list(validator._live.under_way()) == [OTHER]


async def test_a_cancel_at_the_wrong_process_reaches_the_right_one(world: World) -> None:
    miner = CrowdedMiner(0)
    world.miner(miner.script)
    driving, other = world.validator(), world.validator()
    other._bus = other._live._bus = driving._bus
    async with running(driving):
        await driving.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "queued")
        async with running(other):
            await other._cancel(JOB)
            await world.facilitator.wait_for(JOB, "failed")
            told = await other._explainer.explanation(JOB)
    assert told is not None
    assert told.state == "cancelled"


async def test_logs_at_the_wrong_process_are_unavailable(world: World) -> None:
    miner = CrowdedMiner(1)
    world.miner(miner.script)
    driving, other = world.validator(), world.validator()
    answers: list[Any] = []
    async with running(driving):
        await driving.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "executor_ready")
        async with running(other):
            request = V0JobLogsRequest(job_uuid=JOB, request_id="a", position=0)
            await other._answer_for_absent(request, lambda _, answer: answers.append(answer.state))
    assert answers == ["unavailable"]


@asynccontextmanager
async def full_disk(validator: ValidatorService, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """No transaction that writes succeeds in this block."""

    def refuse() -> Any:
        raise DatabaseFull("no room")

    monkeypatch.setattr(validator._database, "begin", refuse)
    yield
    monkeypatch.undo()


async def test_a_full_disk_delays_a_job_and_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, sent = asyncio.Event(), asyncio.Event()

    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await go_on.wait()
        sent.set()
        await finish(miner, job)

    world.miner(script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        async with full_disk(validator, monkeypatch):
            await world.facilitator.push(job_request(JOB, USER, **LONG))
            await turns()
            assert world.facilitator.history(JOB) == []
        await world.facilitator.wait_for(JOB, "executor_ready")
        async with full_disk(validator, monkeypatch):
            go_on.set()
            await sent.wait()
            await world.facilitator.push(V0CancelJobRequest(job_uuid=OTHER))
            await turns()
            assert world.facilitator.history(JOB) == WHOLE[:3]
        await world.facilitator.wait_for(JOB, "completed")
    assert world.facilitator.history(JOB) == WHOLE


async def test_a_miner_is_not_kept_for_long_for_a_job_that_is_not_confirmed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quest, "CLAIM_PATIENCE_SECONDS", 0.01)
    world.miner(whole_job)
    world.facilitator.silent = True
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "received")
        async with asyncio.timeout(5):
            while not world.miners[0].seen or not world.miners[0].idle.is_set():  # noqa: ASYNC110 - no news
                await asyncio.sleep(0)
        world.facilitator.silent = False
        await world.facilitator.push(Response(status="success"))
        await world.facilitator.wait_for(JOB, "completed")
    assert len(world.miners[0].urls) == 2


async def test_a_commit_whose_answer_is_lost_is_not_made_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every transaction that writes is carried out, and says that it may not have been."""
    world.miner(whole_job)
    validator = world.validator()
    begin, lose = validator._database.begin, True

    @asynccontextmanager
    async def unsure() -> AsyncIterator[Any]:
        nonlocal lose
        async with begin() as connection:
            yield connection
        lose = not lose
        if not lose:
            raise DatabaseUnavailable("the connection was lost during the commit")

    async with running(validator):
        await validator.connected.wait()
        await turns()
        monkeypatch.setattr(validator._database, "begin", unsure)
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "completed")
        monkeypatch.undo()
    assert list(dict.fromkeys(world.facilitator.history(JOB))) == WHOLE
    assert world.facilitator.history(JOB).count("accepted") == 1
    assert offered(world) == 1

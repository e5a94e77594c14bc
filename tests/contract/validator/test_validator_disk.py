"""What a peer is told to rely on is on the disk before; nothing else waits for it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.enums import Fault, Participant
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.problems import Problem
from compute_horde.storage.testing import HeldDisk
from compute_horde.validator import attempt
from compute_horde.validator.testing.scripted import MinerConnection, ScriptedMiner, job_request, running
from compute_horde.validator.testing.world import (
    JOB,
    OTHER,
    STRANGER,
    USER,
    WHOLE,
    World,
    accept,
    finish,
    make_ready,
    whole_job,
)

LONG = {"execution_time_limit": 30, "download_time_limit": 30, "upload_time_limit": 30}
RECEIVED, OFFERED = 1, 2


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.limits["retry_backoff"] = 0
    return made


def hold(world: World, trips: int = 0) -> HeldDisk:
    disk = HeldDisk(trips)
    world.settled = disk.settled
    return disk


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not is_true():  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0)


async def turns() -> None:
    """Enough for whatever does not wait for the disk."""
    for _ in range(200):
        await asyncio.sleep(0)


def said(miner: ScriptedMiner) -> list[str]:
    return [type(message).__name__ for message in miner.seen]


async def test_received_is_said_when_the_disk_has_the_job_and_a_miner_is_dialled_meanwhile(world: World) -> None:
    disk, miner = hold(world), world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await until(lambda: miner.seen)
        await turns()
        assert (disk.asked, world.facilitator.history(JOB)) == (1, [])
        disk.let(10)
        await world.facilitator.wait_for(JOB, "completed")
    assert world.facilitator.history(JOB) == WHOLE
    assert not miner.errors


async def test_a_facilitator_without_claims_waits_as_well_and_the_miner_does_not(world: World) -> None:
    world.facilitator.extensions = (Extension.QUEUE,)
    world.facilitator.plug()
    disk, miner = hold(world), world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await until(lambda: "V0JobAcceptedReceiptRequest" in said(miner))
        await turns()
        assert world.facilitator.history(JOB) == []
        assert "V0JobRequest" not in said(miner)
        disk.let(10)
        await world.facilitator.wait_for(JOB, "completed")
    assert world.facilitator.history(JOB) == WHOLE


async def test_a_miner_may_run_a_job_when_the_disk_has_its_offer_and_forget_it_when_it_has_its_end(
    world: World,
) -> None:
    disk = hold(world, RECEIVED)

    async def script(connection: MinerConnection) -> None:
        await connection.expect(vm.ValidatorAuthForMiner)
        await connection.manifest()
        job = (await connection.expect(vm.V0InitialJobRequest)).job_uuid
        assert disk.asked == OFFERED  # on its way while the miner gets ready
        await connection.send(vm.V0AcceptJobRequest(job_uuid=job), vm.V0ExecutorReadyRequest(job_uuid=job))
        await connection.expect(vm.V0JobAcceptedReceiptRequest)
        await connection.expect(vm.V0JobRequest)
        await finish(connection, job)

    miner = world.miner(script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "executor_ready")  # statuses do not wait
        await turns()
        assert said(miner)[-1] == "V0JobAcceptedReceiptRequest"
        disk.let()
        await world.facilitator.wait_for(JOB, "completed")
        await turns()
        assert said(miner)[-1] == "V0JobRequest"
        disk.let()
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert said(miner)[-1] == "V0JobFinishedReceiptRequest"
    assert not miner.errors
    assert disk.asked == 3


async def test_a_miner_that_failed_a_job_hears_so_when_the_disk_has_it(world: World) -> None:
    async def breaks(connection: MinerConnection) -> None:
        job = await make_ready(connection)
        broken = problem("engine_unavailable", "no engine")
        await connection.send(to_wire(broken, job, reported_by=Participant.EXECUTOR))
        await connection.expect(vm.V0JobFinishedReceiptRequest)

    disk = hold(world, OFFERED)
    miners = [world.miner(breaks), world.miner(breaks, host="other", hotkey=STRANGER.ss58_address)]
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "queued")
        await world.facilitator.until(lambda: world.facilitator.history(JOB).count("executor_ready") == 2)
        await turns()
        assert not [miner for miner in miners if "V0JobFinishedReceiptRequest" in said(miner)]
        assert [said(miner).count("V0JobRequest") for miner in miners] in ([0, 1], [1, 0])
        disk.let(10)
        await world.facilitator.wait_for(JOB, "horde_failed")
        for miner in miners:
            await asyncio.wait_for(miner.idle.wait(), 5)
    assert all("V0JobFinishedReceiptRequest" in said(miner) for miner in miners)


async def test_what_an_earlier_run_left_is_brought_to_the_disk_before_it_is_sent(world: World) -> None:
    world.miner(whole_job)
    world.facilitator.silent = True
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "received")
    world.facilitator.silent = False
    disk, again = hold(world), world.validator()
    async with running(again):
        await again.connected.wait()
        await turns()
        assert world.facilitator.history(JOB) == ["received"]
        disk.let(10)
        await world.facilitator.wait_for(JOB, "completed")


async def test_an_executor_that_was_ready_before_a_restart_gets_its_job_after_the_disk(world: World) -> None:
    async def again(connection: MinerConnection) -> None:
        await connection.expect(vm.ValidatorAuthForMiner)
        await finish(connection, (await connection.expect(vm.V0JobRequest)).job_uuid)

    hold(world, RECEIVED)
    miner = world.miner(make_ready, again)
    first = world.validator()
    async with running(first):
        await first.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "executor_ready")
    disk, second = hold(world), world.validator()
    async with running(second):
        await second.connected.wait()
        await turns()
        assert "V0JobRequest" not in said(miner)
        disk.let(10)
        await world.facilitator.wait_for(JOB, "completed")
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert not miner.errors


async def test_a_disk_that_fails_at_first_is_tried_again_and_nothing_is_said_meanwhile(world: World) -> None:
    disk, miner = hold(world, 3), world.miner(whole_job)
    disk.errors = 3
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "completed")
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert world.facilitator.history(JOB) == WHOLE
    assert disk.asked == 6


async def test_a_job_waits_for_the_disk_for_so_long_and_no_longer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "DISK_SECONDS", 0.01)
    hold(world, RECEIVED)
    miner = world.miner(make_ready)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        update = await world.facilitator.wait_for(JOB, "horde_failed")
    assert update.metadata is not None
    details = update.metadata.horde_failure_details
    assert details is not None
    found = Problem.from_context(details.context, details.message)
    assert found is not None
    assert (found.code, found.fault) == ("validator_failed", Fault.VALIDATOR)
    assert "V0JobRequest" not in said(miner)
    assert await world.incidents() == []


async def test_a_job_that_waits_for_the_disk_can_be_cancelled(world: World) -> None:
    async def script(connection: MinerConnection) -> None:
        job = await accept(connection)
        await connection.send(vm.V0ExecutorReadyRequest(job_uuid=job))
        await connection.expect(V0CancelJobRequest)
        await connection.send(to_wire(problem("cancelled", "stopped"), job, reported_by=Participant.EXECUTOR))
        await connection.expect(vm.V0JobFinishedReceiptRequest)

    disk, miner = hold(world, RECEIVED), world.miner(script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "executor_ready")
        await world.facilitator.push(V0CancelJobRequest(job_uuid=JOB))
        await world.facilitator.wait_for(JOB, "failed")
        disk.let(10)
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert not miner.errors


async def test_a_validator_stops_while_the_disk_is_busy(world: World) -> None:
    hold(world, RECEIVED)
    world.miner(make_ready)
    validator = world.validator()
    async with asyncio.timeout(5), running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "executor_ready")
        await world.facilitator.push(job_request(OTHER, USER, **LONG))
        await turns()
    assert world.facilitator.history(OTHER) == []

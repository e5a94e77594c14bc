"""A failure that is not the user's is tried again, at another miner."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.control import LogPiece, V0CancelJobRequest, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.enums import JobStatus, Participant, RejectionReason
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.scheduling import AttemptDetails, Scheduling, attempt_uuid
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.testing.crowded import CrowdedMiner
from compute_horde.validator.testing.scripted import MinerConnection, Script, job_request, running
from compute_horde.validator.testing.world import (
    JOB,
    MINER,
    STRANGER,
    USER,
    WHOLE,
    World,
    accept,
    finish,
    make_ready,
    never_accepts,
    whole_job,
)

SECOND = attempt_uuid(JOB, 2)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.limits |= {"retry_backoff": 0}
    return made


async def breaks(miner: MinerConnection) -> None:
    job = await make_ready(miner)
    await miner.send(to_wire(problem("engine_unavailable", "no engine"), job, reported_by=Participant.EXECUTOR))
    receipt = await miner.expect(vm.V0JobFinishedReceiptRequest)
    assert receipt.payload.score_str == "0.000000"
    assert receipt.payload.job_uuid == job


def two(world: World, first: Script, second: Script = whole_job, **changes: Any) -> ValidatorService:
    """A validator that tries the first miner first."""
    world.miner(first, host="first", hotkey=STRANGER.ss58_address)
    world.miner(second, host="second")
    validator = world.validator(**changes)
    names = [STRANGER.ss58_address, MINER.ss58_address]
    choose = validator._dispatcher.candidates
    validator._matcher._candidates = lambda pool: sorted(choose(pool), key=lambda miner: names.index(miner.hotkey))
    return validator


async def settled(world: World) -> None:
    for miner in world.miners:
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert not [error for miner in world.miners for error in miner.errors]


async def run(world: World, validator: ValidatorService, status: str, **changes: Any) -> V0JobStatusUpdate:
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **changes))
        update = await world.facilitator.wait_for(JOB, status)
        await settled(world)
    return update


def told(world: World, status: str, number: int = 0) -> V0JobStatusUpdate:
    return [update for update in world.facilitator.statuses if update.status.value == status][number]


def attempt_of(update: V0JobStatusUpdate) -> AttemptDetails | None:
    return update.metadata.attempt if update.metadata else None


async def test_the_hordes_failure_is_tried_again_at_another_miner(world: World) -> None:
    done = await run(world, two(world, breaks), "completed")
    assert world.facilitator.history(JOB) == [*WHOLE[:3], "queued", *WHOLE[1:]]
    queued = told(world, "queued").metadata
    assert queued is not None
    assert queued.attempt == AttemptDetails(number=2, of=3)
    assert queued.horde_failure_details is not None
    found = Problem.from_context(queued.horde_failure_details.context, "")
    assert found is not None
    assert found.code == "engine_unavailable"
    assert queued.queue is not None
    assert queued.queue.time_limit_s == 3600
    assert attempt_of(told(world, "accepted")) == AttemptDetails(
        number=1, of=3, miner_hotkey=STRANGER.ss58_address
    )
    assert attempt_of(told(world, "accepted", 1)) == AttemptDetails(
        number=2, of=3, miner_hotkey=MINER.ss58_address
    )
    assert attempt_of(done) == AttemptDetails(number=2, of=3)
    names = [m.job_uuid for miner in world.miners for m in miner.seen if isinstance(m, vm.V0JobRequest)]
    assert names == [JOB, SECOND]
    assert await world.receipts() == await world.receipts(SECOND)
    assert await world.incidents() == [(STRANGER.ss58_address, "engine_unavailable")]


async def test_the_users_own_failure_is_not(world: World) -> None:
    async def own(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.send(to_wire(problem("nonzero_exit", "3"), job, reported_by=Participant.EXECUTOR))
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    update = await run(world, two(world, own), "failed")
    assert attempt_of(update) == AttemptDetails(number=1, of=3)
    assert world.miners[1].seen == []


@pytest.mark.parametrize("wished", [True, False])
async def test_there_are_no_more_attempts_than_wished_or_set(world: World, wished: bool) -> None:
    changes = {"scheduling": Scheduling(attempts=1)} if wished else {}
    update = await run(world, two(world, breaks, attempts=3 if wished else 1), "horde_failed", **changes)
    assert attempt_of(update) == AttemptDetails(number=1, of=1)
    assert "queued" not in world.facilitator.history(JOB)


async def test_with_no_other_miner_the_job_ends_at_once(world: World) -> None:
    world.miner(breaks)
    update = await run(world, world.validator(), "horde_failed")
    assert world.facilitator.history(JOB) == [*WHOLE[:3], "horde_failed"]
    assert attempt_of(update) == AttemptDetails(number=1, of=3)


async def test_when_all_have_failed_it_the_last_failure_is_the_end(world: World) -> None:
    update = await run(world, two(world, breaks, breaks), "horde_failed")
    assert attempt_of(update) == AttemptDetails(number=2, of=3)
    assert len(await world.incidents()) == 2


async def test_the_trusted_miner_is_tried_again(world: World) -> None:
    world.miner(breaks, whole_job, host="trusted", hotkey=TRUSTED_MINER_HOTKEY)
    validator = world.validator(trusted_miner_address="trusted", trusted_miner_port=8000)
    await run(world, validator, "completed", on_trusted_miner=True)
    assert world.facilitator.history(JOB).count("accepted") == 2
    assert await world.incidents() == []


async def test_a_miner_that_declines_costs_no_attempt(world: World) -> None:
    async def declines(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.manifest()
        job = (await miner.expect(vm.V0InitialJobRequest)).job_uuid
        await miner.send(vm.V0DeclineJobRequest(job_uuid=job, reason=RejectionReason.UNKNOWN, message="no"))
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    done = await run(world, two(world, declines), "completed")
    assert world.facilitator.history(JOB) == WHOLE
    assert attempt_of(done) == AttemptDetails(number=1, of=3)
    names = [m.job_uuid for miner in world.miners for m in miner.seen if isinstance(m, vm.V0InitialJobRequest)]
    assert names == [JOB, JOB]
    assert await world.receipts() == ["JobAcceptedReceipt", "JobFinishedReceipt", "JobStartedReceipt"]


async def test_a_silent_miner_is_told_to_stop_before_another_is_asked(world: World) -> None:
    world.limits["reservation_limit"] = 0.1

    async def silent(miner: MinerConnection) -> None:
        await never_accepts(miner)
        assert (await miner.expect(V0CancelJobRequest)).job_uuid == JOB
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    await run(world, two(world, silent), "completed")
    assert world.facilitator.history(JOB) == ["received", "queued", *WHOLE[1:]]
    initial = world.miners[1].seen[1]
    assert isinstance(initial, vm.V0InitialJobRequest)
    assert initial.job_uuid == SECOND


async def test_what_is_said_of_an_earlier_attempt_changes_nothing(world: World) -> None:
    first_is_over = asyncio.Event()

    async def late(miner: MinerConnection) -> None:
        await breaks(miner)
        first_is_over.set()

    async def second(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await first_is_over.wait()
        await miner.send(to_wire(problem("nonzero_exit", "late"), JOB, reported_by=Participant.EXECUTOR))
        await finish(miner, job)

    await run(world, two(world, late, second), "completed")
    assert "failed" not in world.facilitator.history(JOB)


@pytest.mark.parametrize("restart", [False, True])
async def test_the_pause_between_attempts_can_be_cancelled_and_outlives_a_restart(
    world: World, restart: bool
) -> None:
    validator = two(world, breaks, retry_backoff=30)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "queued")
        if not restart:
            await world.facilitator.push(V0CancelJobRequest(job_uuid=JOB))
            await world.facilitator.wait_for(JOB, "failed")
    if restart:
        validator = world.validator(retry_backoff=0)  # its own pause is no longer than that
        async with running(validator):
            await world.facilitator.wait_for(JOB, "completed")
        assert not [m for m in world.miners[0].seen if getattr(m, "job_uuid", JOB) != JOB]  # not asked again
    await settled(world)


async def test_output_comes_from_the_attempt_under_way(world: World) -> None:
    request = V0JobLogsRequest(job_uuid=JOB, request_id="a", position=77)
    piece = LogPiece(stream="stdout", offset=0, text="hi")

    async def second(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        for position in (0, 5):
            asked = await miner.expect(V0JobLogsRequest)
            assert (asked.job_uuid, asked.position) == (SECOND, position)
            await miner.send(
                V0JobLogsResponse(job_uuid=job, request_id="a", state="more", position=5, pieces=[piece])
            )
        await finish(miner, job)

    validator = two(world, breaks, second)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, execution_time_limit=30))
        await world.facilitator.until(lambda: world.facilitator.history(JOB).count("executor_ready") == 2)
        await world.facilitator.push(request)
        await world.facilitator.until(lambda: len(world.facilitator.logs) == 1)
        answer = world.facilitator.logs[0]
        assert (answer.job_uuid, answer.pieces) == (JOB, [piece])
        await world.facilitator.push(request.model_copy(update={"position": answer.position}))
        await world.facilitator.wait_for(JOB, "completed")
        await settled(world)


async def test_a_facilitator_that_knows_of_no_attempts_sees_plain_statuses(world: World) -> None:
    world.facilitator.extensions = (Extension.CANCEL, Extension.LOGS)
    world.facilitator.plug()
    await run(world, two(world, breaks), "completed")
    assert JobStatus.QUEUED not in [update.status for update in world.facilitator.statuses]
    assert all(attempt_of(update) is None for update in world.facilitator.statuses)
    assert told(world, "accepted").metadata is None


async def test_a_cancel_goes_to_the_attempt_under_way(world: World) -> None:
    async def second(miner: MinerConnection) -> None:
        job = await accept(miner)
        assert (await miner.expect(V0CancelJobRequest)).job_uuid == job
        await miner.send(to_wire(problem("cancelled", "stopped"), job, reported_by=Participant.EXECUTOR))
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    validator = two(world, breaks, second)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.until(lambda: world.facilitator.history(JOB).count("accepted") == 2)
        await world.facilitator.push(V0CancelJobRequest(job_uuid=JOB))
        update = await world.facilitator.wait_for(JOB, "failed")
        await settled(world)
    assert attempt_of(update) == AttemptDetails(number=2, of=3)


async def test_the_next_attempt_waits_for_an_executor_too(world: World) -> None:
    crowded = CrowdedMiner(0)
    crowded.finish(SECOND)
    validator = two(world, breaks, crowded.script)
    async with running(validator):
        await validator.connected.wait()
        limits = {"download_time_limit": 30, "execution_time_limit": 30, "upload_time_limit": 30}
        await world.facilitator.push(job_request(JOB, USER, **limits))
        await crowded.until_asked(1)
        async with asyncio.timeout(5):
            while (job := await validator._store.job(JOB)) is None or job.queued_at is None:  # noqa: ASYNC110 - no news
                await asyncio.sleep(0)
        assert (job.attempt, job.miner) == (2, None)
        await crowded.set_free(1)
        await world.facilitator.wait_for(JOB, "completed")
    assert world.facilitator.history(JOB) == [*WHOLE[:3], "queued", "accepted", "executor_ready", "completed"]
    assert set(crowded.asked) == {SECOND}


async def test_a_next_attempt_that_may_not_wait_ends_with_the_last_failure(world: World) -> None:
    crowded = CrowdedMiner(0)
    validator = two(world, breaks, crowded.script, queue_time_limit=0)
    update = await run(world, validator, "horde_failed")
    assert attempt_of(update) == AttemptDetails(number=2, of=3)
    assert crowded.asked == [SECOND]

"""A job that finds no free executor waits for one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.enums import ExecutorClass, RejectionReason
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.facilitator_validator import V0ExplainJobRequest, V0JobStatusUpdate
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.scheduling import Scheduling
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.testing.crowded import CrowdedMiner
from compute_horde.validator.testing.scripted import job_request, running
from compute_horde.validator.testing.world import JOB, MINER, OTHER, STRANGER, USER, WHOLE, World, whole_job

THIRD = "33333333-3333-4333-8333-333333333333"
SHORT_WHOLE = ["received", "accepted", "executor_ready", "completed"]
LONG = {"execution_time_limit": 30, "download_time_limit": 30, "upload_time_limit": 30}
ANN = throwaway_hotkey("//Ann")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    signers = made.chain.current.signers | {ANN.ss58_address}
    made.chain.current = made.chain.current.model_copy(update={"signers": signers})
    return made


def crowded(world: World, miner: CrowdedMiner, **rest: Any) -> CrowdedMiner:
    extensions = {Extension.CANCEL, Extension.LOGS} | ({Extension.CAPACITY} if miner.tells else set())
    world.miner(miner.script, extensions=extensions, **rest)
    return miner


async def send(world: World, uuid: str, signer: Any = USER, **changes: Any) -> None:
    await world.facilitator.push(job_request(uuid, signer, **(LONG | changes)))


async def queued(world: World, validator: ValidatorService, *uuids: str, **changes: Any) -> None:
    """Send jobs one after another, each of which has to wait."""
    await validator.connected.wait()
    for uuid in uuids:
        await send(world, uuid, **changes)
        await world.facilitator.wait_for(uuid, "queued")


def is_first(world: World, uuid: str) -> bool:
    return (uuid, 1) in [(place.job_uuid, place.position) for place in world.facilitator.places]


def problem_of(update: V0JobStatusUpdate) -> Problem:
    assert update.metadata is not None
    details = update.metadata.job_rejection_details or update.metadata.horde_failure_details
    assert details is not None
    found = Problem.from_context(details.context, details.message)
    assert found is not None
    return found


@pytest.mark.parametrize("tells", [True, False])
async def test_a_job_that_is_declined_as_busy_waits_and_runs_when_an_executor_is_free(
    world: World, tells: bool
) -> None:
    miner = crowded(world, CrowdedMiner(0, tells=tells))
    validator = world.validator()
    async with running(validator):
        await queued(world, validator, JOB)
        if tells:
            await asyncio.sleep(0.2)  # a line to the miner is open by then
        await miner.set_free(1)
        miner.finish(JOB)
        await world.facilitator.wait_for(JOB, "completed")
    assert world.facilitator.history(JOB) == ["received", "queued", *SHORT_WHOLE[1:]]
    assert len(miner.asked) == 2
    metadata = next(u for u in world.facilitator.statuses if u.status.value == "queued").metadata
    assert metadata is not None
    assert metadata.queue is not None
    assert (metadata.queue.position, metadata.queue.length, metadata.queue.time_limit_s) == (1, 1, 3600)
    assert "busy" in metadata.queue.reason
    assert await world.incidents() == []


async def test_a_job_that_finds_an_executor_at_once_is_never_queued(world: World) -> None:
    miner = crowded(world, CrowdedMiner(2))
    miner.finish(JOB, OTHER)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        for uuid in (JOB, OTHER):
            await send(world, uuid)
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed")
            assert world.facilitator.history(uuid) == SHORT_WHOLE


async def test_users_take_turns_and_the_executor_goes_on_to_the_next(world: World) -> None:
    miner = crowded(world, CrowdedMiner(1, total=1))
    fourth = "44444444-4444-4444-8444-444444444444"
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await send(world, JOB)
        await world.facilitator.wait_for(JOB, "executor_ready")
        await queued(world, validator, OTHER, THIRD)
        await queued(world, validator, fourth, signer=ANN)
        await world.facilitator.until(
            lambda: {(p.job_uuid, p.position) for p in world.facilitator.places} >= {(fourth, 1)}
        )
        miner.finish(JOB, OTHER, THIRD, fourth)
        for uuid in (JOB, OTHER, THIRD, fourth):
            await world.facilitator.wait_for(uuid, "completed")
    assert miner.began == [JOB, fourth, OTHER, THIRD]
    assert miner.asked == miner.began  # nobody was asked in vain


async def test_the_users_own_priorities_order_the_users_own_jobs(world: World) -> None:
    miner = crowded(world, CrowdedMiner(1, total=1))
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await send(world, JOB)
        await world.facilitator.wait_for(JOB, "executor_ready")
        await queued(world, validator, OTHER)
        await queued(world, validator, THIRD, scheduling=Scheduling(priority=5))
        miner.finish(JOB, OTHER, THIRD)
        await world.facilitator.wait_for(OTHER, "completed")
    assert miner.began == [JOB, THIRD, OTHER]


async def test_a_job_that_does_not_wait_ends_with_the_miners_words(world: World) -> None:
    miner = crowded(world, CrowdedMiner(0))
    other = crowded(world, CrowdedMiner(0, tells=False), host="other", hotkey=STRANGER.ss58_address)
    update = await world.run(status="rejected", scheduling=Scheduling(queue_time_limit=0))
    assert world.facilitator.history(JOB) == ["received", "rejected"]
    assert update.metadata is not None
    details = update.metadata.job_rejection_details
    assert details is not None
    assert (details.reason, details.message) == (RejectionReason.BUSY, "All are busy")
    assert miner.asked == other.asked == [JOB]  # each was asked once


async def test_a_job_waits_for_a_miner_that_cannot_store_it_now(world: World) -> None:
    miner = crowded(world, CrowdedMiner(2))
    miner.full = True
    validator = world.validator()
    async with running(validator):
        await queued(world, validator, JOB)
        await miner.until_asked(1)
        miner.full = False
        await miner.set_free(2)
        miner.finish(JOB)
        await world.facilitator.wait_for(JOB, "completed")
    assert "rejected" not in world.facilitator.history(JOB)
    assert await world.incidents() == []


async def test_the_wait_has_an_end(world: World) -> None:
    crowded(world, CrowdedMiner(0))
    world.limits["max_queue_time"] = 0.2
    update = await world.run(status="rejected", scheduling=Scheduling(queue_time_limit=3600))
    found = problem_of(update)
    assert (found.code, found.retryable, found.details["why"]) == (
        "queue_timeout",
        True,
        "all executors of this class were busy",
    )


async def test_a_job_waits_for_a_miner_that_is_away(world: World) -> None:
    world.miner(whole_job)
    world.dialer.unplug("ws://miner:8000/")
    validator = world.validator()
    async with running(validator):
        await queued(world, validator, JOB)
        world.dialer.serve("ws://miner:8000/", world.miners[0].accept)
        await world.facilitator.wait_for(JOB, "completed")
    assert world.facilitator.history(JOB) == ["received", "queued", *WHOLE[1:]]
    assert await world.incidents() == [(MINER.ss58_address, "miner_unreachable")]


async def test_a_waiting_job_is_cancelled_at_once(world: World) -> None:
    miner = crowded(world, CrowdedMiner(0))
    validator = world.validator()
    async with running(validator):
        await queued(world, validator, JOB)
        await world.facilitator.push(V0CancelJobRequest(job_uuid=JOB))
        await world.facilitator.wait_for(JOB, "failed")
    assert len(miner.asked) == 1


async def test_after_a_restart_jobs_keep_their_place_and_their_time(world: World) -> None:
    miner = crowded(world, CrowdedMiner(0, total=1))
    validator = world.validator(queue_time_limit=1000)
    async with running(validator):
        await queued(world, validator, JOB, OTHER)
    asked = len(miner.asked)
    validator = world.validator(queue_time_limit=1000)
    async with running(validator):
        await world.facilitator.until(lambda: len(world.facilitator.authentications) == 2)
        await miner.until_asked(asked + 1)
        left = [driver.quest.left(driver.job) for driver in validator._live.drivers()]
        assert all(990 < seconds < 1000 for seconds in left)
        miner.finish(JOB, OTHER)
        await miner.set_free(1)
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed")
            reached = list(dict.fromkeys(world.facilitator.history(uuid)))  # some were sent again
            assert reached == ["received", "queued", *SHORT_WHOLE[1:]]
    assert miner.began == [JOB, OTHER]


async def test_jobs_of_one_class_do_not_wait_for_jobs_of_another(world: World) -> None:
    miner = crowded(world, CrowdedMiner(1))
    miner.finish(OTHER)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        world.dialer.unplug("ws://miner:8000/")
        await send(world, JOB, executor_class=ExecutorClass.always_on__gpu_24gb)
        await world.facilitator.wait_for(JOB, "queued")
        world.dialer.serve("ws://miner:8000/", world.miners[0].accept)
        await send(world, OTHER)
        await world.facilitator.wait_for(OTHER, "completed")
        # the miner is back and lacks the class: there is nobody left to wait for
        assert problem_of(await world.facilitator.wait_for(JOB, "rejected")).code == "no_miner_for_job"


async def test_why_a_job_waits_is_told(world: World) -> None:
    miner = crowded(world, CrowdedMiner(0))
    validator = world.validator()
    async with running(validator):
        await queued(world, validator, JOB)
        for uuid in (JOB, OTHER, "no uuid"):
            await world.facilitator.push(V0ExplainJobRequest(job_uuid=uuid, request_id=uuid[:2]))
        await world.facilitator.until(lambda: len(world.facilitator.explanations) == 3)
        answers = {answer.request_id: answer.explanation for answer in world.facilitator.explanations}
        assert answers["22"] is answers["no"] is None
        metrics = (await validator.metrics.render()).decode()
        assert 'compute_horde_validator_queued_jobs{executor_class="always_on.test"} 1.0' in metrics
        assert 'compute_horde_validator_jobs{state="queued"} 1.0' in metrics
        assert "compute_horde_validator_queue_age_seconds{" in metrics
        assert "compute_horde_validator_facilitator_connected 1.0" in metrics
        told = answers["11"]
        assert told is not None
        assert (told.state, told.reported_by, told.attempt, told.attempts) == ("queued", "validator", 1, 3)
        assert told.queue is not None
        assert told.queue.position == 1
        assert told.queue_time_left_s is not None
        assert 3590 < told.queue_time_left_s <= 3600
        assert [(one.miner_hotkey, one.answer, one.tries) for one in told.miners] == [
            (MINER.ss58_address, "busy", 1)
        ]
        miner.finish(JOB)
        await miner.set_free(1)
        await world.facilitator.wait_for(JOB, "completed")
        await world.facilitator.push(V0ExplainJobRequest(job_uuid=JOB, request_id="z"))
        await world.facilitator.until(lambda: len(world.facilitator.explanations) == 4)
        ended = world.facilitator.explanations[-1].explanation
        assert ended is not None
        assert ended.state == "completed"


async def test_places_are_told_again_after_a_reconnect_and_never_to_older_facilitators(world: World) -> None:
    crowded(world, CrowdedMiner(0))
    facilitator = world.facilitator
    validator = world.validator()
    async with running(validator):
        await queued(world, validator, JOB)
        await facilitator.until(lambda: bool(facilitator.places))
        facilitator.places.clear()
        await facilitator.drop()
        await facilitator.until(lambda: bool(facilitator.places))
        assert facilitator.places[0].job_uuid == JOB
        facilitator.places.clear()
        await facilitator.unplug()
        facilitator.extensions = (Extension.LOGS,)
        facilitator.plug()
        await facilitator.until(lambda: len(facilitator.authentications) == 3)
        await asyncio.sleep(1.2)
    assert facilitator.places == []


async def test_the_fast_path_costs_no_more_transactions_than_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One to let the job in, one for the miner that is asked, one for each status: seven."""
    world.miner(whole_job)
    validator = world.validator()
    begin, count = validator._database.begin, 0

    def counted() -> Any:
        nonlocal count
        count += 1
        return begin()

    async with running(validator):
        await validator.connected.wait()
        await asyncio.sleep(0)
        monkeypatch.setattr(validator._database, "begin", counted)
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "completed")
        assert count == 7
    assert [m for m in world.miners[0].seen if isinstance(m, vm.V0InitialJobRequest)]

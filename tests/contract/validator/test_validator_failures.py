"""The miner declines, fails or says nothing: each has its status and its blame (6.5, 6.7, G23, G32)."""

from pathlib import Path
from typing import Any

import pytest

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.base import Message
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.enums import (
    FailureReason,
    Fault,
    HordeFailureReason,
    Participant,
    RejectionReason,
    Stage,
)
from compute_horde.protocol.problems import Problem
from compute_horde.validator.testing.scripted import (
    MinerConnection,
    Script,
)
from compute_horde.validator.testing.world import (
    JOB,
    MINER,
    SHORT,
    World,
    accept,
    ending,
    never_accepts,
    never_answers,
    never_executes,
    never_has_volumes,
    whole_job,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("reason", list(RejectionReason))
async def test_a_decline_rejects_the_job(world: World, reason: RejectionReason) -> None:
    async def decline(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.manifest()
        job = (await miner.expect(vm.V0InitialJobRequest)).job_uuid
        await miner.send(vm.V0DeclineJobRequest(job_uuid=job, reason=reason, message="no", context={"a": 1}))
        receipt = await miner.expect(vm.V0JobFinishedReceiptRequest)
        assert receipt.payload.score_str == "0.000000"

    world.limits["queue_time_limit"] = 0
    miner = world.miner(decline)
    update = await world.run(status="rejected")
    assert not miner.errors
    assert update.metadata is not None
    details = update.metadata.job_rejection_details
    assert details is not None
    assert (details.rejected_by, details.reason, details.message) == (Participant.MINER, reason, "no")
    assert details.context == {"a": 1}
    assert await world.incidents() == []


async def test_a_users_fault_is_passed_on_whole_and_is_no_incident(world: World) -> None:
    found = problem("nonzero_exit", "the job exited with 3")
    failed = to_wire(found, JOB, reported_by=Participant.EXECUTOR, stdout="out", stderr="err", exit_status=3)
    world.miner(ending(failed))
    update = await world.run(status="failed")
    assert update.metadata is not None
    details = update.metadata.job_failure_details
    assert details is not None
    assert details.model_dump() == failed.model_dump(exclude={"message_type", "job_uuid"})
    assert Problem.from_context(details.context, details.message) == found
    assert await world.incidents() == []


@pytest.mark.parametrize(
    ("message", "blame"),
    [
        (to_wire(problem("engine_unavailable", "m"), JOB, reported_by=Participant.EXECUTOR), "engine_unavailable"),
        (to_wire(problem("image_pull_failed", "m"), JOB, reported_by=Participant.EXECUTOR), None),
        (
            vm.V0HordeFailedRequest(
                job_uuid=JOB,
                reported_by=Participant.MINER,
                message="older peer",
                reason=HordeFailureReason.EXECUTOR_SPINUP_FAILED,
            ),
            "executor_spinup_failed",
        ),
        (vm.V0ExecutorFailedRequest(job_uuid=JOB), "generic_error"),
    ],
    ids=["miner", "nobody", "older-peer", "legacy-message"],
)
async def test_a_horde_failure_blames_the_miner_only_for_its_own_fault(
    world: World, message: Message, blame: str | None
) -> None:
    world.miner(ending(message))
    update = await world.run(status="horde_failed")
    assert update.metadata is not None
    assert update.metadata.horde_failure_details is not None
    assert await world.incidents() == ([(MINER.ss58_address, blame)] if blame else [])


async def test_a_failure_of_an_older_peer_without_a_problem_is_no_incident(world: World) -> None:
    world.miner(ending(vm.V0StreamingJobNotReadyRequest(job_uuid=JOB)))
    update = await world.run(status="failed")
    assert update.metadata is not None
    assert update.metadata.job_failure_details is not None
    assert update.metadata.job_failure_details.reason is FailureReason.UNKNOWN
    assert update.metadata.job_failure_details.stage is Stage.STREAMING_STARTUP
    assert await world.incidents() == []


@pytest.mark.parametrize(
    ("script", "code", "reason", "changes"),
    [
        (never_accepts, "miner_silent", HordeFailureReason.INITIAL_RESPONSE_TIMED_OUT, {}),
        (accept, "executor_late", HordeFailureReason.EXECUTOR_READINESS_RESPONSE_TIMED_OUT, {}),
        (never_has_volumes, "volumes_late", HordeFailureReason.VOLUMES_TIMED_OUT, {}),
        (
            never_executes,
            "streaming_late",
            HordeFailureReason.STREAMING_JOB_READY_TIMED_OUT,
            {"streaming_details": {"public_key": "PEM"}},
        ),
        (never_executes, "execution_late", HordeFailureReason.EXECUTION_TIMED_OUT, {}),
        (never_answers, "result_late", HordeFailureReason.FINAL_RESPONSE_TIMED_OUT, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_missed_deadline_is_a_horde_failure_and_an_incident(
    world: World, script: Script, code: str, reason: HordeFailureReason, changes: dict[str, Any]
) -> None:
    world.limits = dict(SHORT)

    async def and_then_the_receipt(miner: MinerConnection) -> None:
        await script(miner)
        await miner.expect(V0CancelJobRequest)  # what may still run is stopped
        receipt = await miner.expect(vm.V0JobFinishedReceiptRequest)
        assert receipt.payload.score_str == "0.000000"

    miner = world.miner(and_then_the_receipt)
    update = await world.run(status="horde_failed", **changes)
    assert not miner.errors
    assert update.metadata is not None
    details = update.metadata.horde_failure_details
    assert details is not None
    assert (details.reported_by, details.reason) == (Participant.VALIDATOR, reason)
    found = Problem.from_context(details.context, details.message)
    assert found is not None
    assert (found.code, found.fault) == (code, Fault.MINER)
    assert await world.incidents() == [(MINER.ss58_address, code)]


async def test_a_job_longer_than_ten_minutes_is_not_given_up_early(world: World) -> None:
    """G32: the existing validator waits 600 s, whatever the job's limits."""
    miner = world.miner(whole_job)
    limits = {"download_time_limit": 3600, "execution_time_limit": 7200, "upload_time_limit": 3600}
    await world.run(status="completed", **limits)
    assert isinstance(miner.seen[1], vm.V0InitialJobRequest)
    assert miner.seen[1].executor_timing is not None
    assert miner.seen[1].executor_timing.execution_time_limit == 7200

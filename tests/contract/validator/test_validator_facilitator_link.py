"""Lost connections of the facilitator and restarts of the validator (G13, G31, G52)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compute_horde.chain.keys import verify
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES
from compute_horde.protocol.facilitator_validator import Response
from compute_horde.protocol.signing import verify_hex
from compute_horde.validator.testing.scripted import (
    MinerConnection,
    job_request,
    running,
)
from compute_horde.validator.testing.world import (
    JOB,
    USER,
    VALIDATOR,
    WHOLE,
    World,
    accept,
    finish,
    make_ready,
    never_accepts,
    never_executes,
    result,
    silence,
    whole_job,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_no_status_is_lost_repeated_or_reordered_while_the_facilitator_is_away(world: World) -> None:
    facilitator, go = world.facilitator, asyncio.Event()

    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await go.wait()
        await finish(miner, job)

    world.miner(script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await facilitator.push(job_request(JOB, USER))
        await facilitator.wait_for(JOB, "executor_ready")
        await facilitator.unplug()
        go.set()
        await asyncio.sleep(0.1)
        assert not validator.connected.is_set()
        facilitator.plug()
        await facilitator.wait_for(JOB, "completed")
    assert sorted(set(facilitator.history(JOB)), key=WHOLE.index) == WHOLE
    assert list(dict.fromkeys(facilitator.history(JOB))) == WHOLE
    assert len(facilitator.authentications) >= 2


async def test_an_unacknowledged_status_is_sent_again_and_a_known_one_counts_as_acknowledged(world: World) -> None:
    facilitator = world.facilitator
    facilitator.silent = True
    world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await facilitator.push(job_request(JOB, USER))
        await facilitator.wait_for(JOB, "received")
        await asyncio.sleep(0.1)
        assert facilitator.history(JOB) == ["received"]  # one at a time
        facilitator.silent = False
        facilitator.answers["received"] = Response.error("job.integrity_error", "twice")
        await facilitator.drop()
        await facilitator.wait_for(JOB, "completed")
    assert facilitator.history(JOB) == ["received", *WHOLE]


async def test_a_result_that_the_facilitator_cannot_take_does_not_block_the_others(world: World) -> None:
    facilitator = world.facilitator
    facilitator.max_frame_bytes = 10_000

    async def large(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        bulky = result(job).model_copy(update={"artifacts": {"/artifacts/a": "A" * 20_000}})
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job), bulky)
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    world.miner(large)
    update = await world.run(status="completed")
    assert facilitator.history(JOB) == WHOLE
    assert update.metadata is not None
    assert update.metadata.miner_response is not None
    assert update.metadata.miner_response.artifacts is None
    assert update.metadata.miner_response.docker_process_stdout == "hi\n"
    assert "too large" in (update.metadata.miner_response.notices or [""])[-1]


@pytest.mark.parametrize(
    "bulk",
    [
        {"output_hashes": {f"{number}": "a" * 64 for number in range(200)}},
        {"notices": ["x" * 200] * 100},
        {"notices": ["x" * 20_000]},
        {"image_digest": "x" * 20_000},
    ],
)
async def test_no_part_of_a_result_is_so_large_that_it_blocks_the_others(
    world: World, bulk: dict[str, Any]
) -> None:
    facilitator = world.facilitator
    facilitator.max_frame_bytes = 8_000

    async def large(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        bulky = result(job).model_copy(update=bulk)
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job), bulky)
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    world.miner(large)
    update = await world.run(status="completed")
    assert facilitator.history(JOB) == WHOLE
    assert update.metadata is not None
    assert update.metadata.miner_response is not None
    assert "too large" in (update.metadata.miner_response.notices or [""])[-1]


async def test_a_status_that_stays_too_large_is_sent_bare(world: World) -> None:
    facilitator = world.facilitator
    facilitator.max_frame_bytes = 10_000

    async def large(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        bulky = result(job).model_copy(update={"docker_process_stdout": "x" * 20_000})
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job), bulky)
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    world.miner(large)
    update = await world.run(status="completed")
    assert update.metadata is None


async def test_an_oversized_frame_of_the_facilitator_costs_one_connection(world: World) -> None:
    world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push("x" * (MAX_MINER_FRAME_BYTES + 1))
        await world.facilitator.until(lambda: len(world.facilitator.authentications) == 2)
        await asyncio.wait_for(validator.connected.wait(), 5)
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "completed")
    assert world.facilitator.history(JOB) == WHOLE


async def test_what_waits_in_the_outbox_outlives_a_restart(world: World) -> None:
    """Large results too, which memory does not hold."""

    async def large(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await world.facilitator.unplug()
        bulky = result(job).model_copy(update={"artifacts": {"/artifacts/a": "A" * 100_000}})
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job), bulky)
        await miner.expect(vm.V0JobFinishedReceiptRequest)
        done.set()

    done = asyncio.Event()
    world.miner(large)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await asyncio.wait_for(done.wait(), 5)
    world.facilitator.plug()
    async with running(world.validator()):
        update = await world.facilitator.wait_for(JOB, "completed")
    assert list(dict.fromkeys(world.facilitator.history(JOB))) == WHOLE
    assert update.metadata is not None
    assert update.metadata.miner_response is not None
    assert len((update.metadata.miner_response.artifacts or {})["/artifacts/a"]) == 100_000


async def test_a_refused_validator_tries_again(world: World) -> None:
    facilitator = world.facilitator
    facilitator.answers["authentication"] = Response.error("auth.validator_not_found", "who?")
    validator = world.validator()
    async with running(validator):
        await facilitator.until(lambda: len(facilitator.authentications) >= 3)
        assert not validator.connected.is_set()
        facilitator.answers.clear()
        await asyncio.wait_for(validator.connected.wait(), 5)
    key = bytes.fromhex(facilitator.authentications[0].public_key)
    assert verify_hex(verify, VALIDATOR.ss58_address, key, facilitator.authentications[0].signature)
    assert {"X-Validator-Version", "X-Validator-Runner-Version"} < set(facilitator.headers[0])
    assert facilitator.headers[0]["X-CH-Max-Frame-Bytes"] == "52428800"


async def test_heartbeats_are_sent(world: World) -> None:
    validator = world.validator(heartbeat_seconds=0.01)
    async with running(validator):
        await world.facilitator.until(lambda: world.facilitator.heartbeats >= 3)


@pytest.mark.parametrize("stage", ["asked", "accepted", "ready", "volumes"])
async def test_a_restart_goes_on_where_the_job_was(world: World, stage: str) -> None:
    reached = asyncio.Event()
    statuses = {"asked": "received", "accepted": "accepted", "ready": "executor_ready", "volumes": "volumes_ready"}
    steps = {"asked": never_accepts, "accepted": accept, "ready": make_ready, "volumes": never_executes}

    async def first(miner: MinerConnection) -> None:
        await steps[stage](miner)
        await world.facilitator.wait_for(JOB, statuses[stage])
        reached.set()

    async def replay(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        if stage == "asked":
            await miner.expect(vm.V0InitialJobRequest)
        await miner.send(vm.V0AcceptJobRequest(job_uuid=JOB), vm.V0ExecutorReadyRequest(job_uuid=JOB))
        if stage == "asked":
            await miner.expect(vm.V0JobAcceptedReceiptRequest)
        if stage != "volumes":
            await miner.expect(vm.V0JobRequest)
        await finish(miner, JOB)

    miner = world.miner(first, replay)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await reached.wait()
    async with running(world.validator()):
        await world.facilitator.wait_for(JOB, "completed")
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert not miner.errors
    assert list(dict.fromkeys(world.facilitator.history(JOB))) == WHOLE
    assert await world.receipts() == ["JobAcceptedReceipt", "JobFinishedReceipt", "JobStartedReceipt"]


async def test_a_restart_begins_anew_where_no_miner_was_asked(world: World) -> None:
    world.limits["miner_connect_limit"] = 30
    world.miner(silence, whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "received")
    async with running(world.validator()):
        await world.facilitator.wait_for(JOB, "completed")
    assert list(dict.fromkeys(world.facilitator.history(JOB))) == WHOLE

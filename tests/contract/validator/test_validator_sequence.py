"""A whole job between a scripted facilitator and a scripted miner: the sequence of section 6.5."""

import asyncio
from pathlib import Path

import pytest

from compute_horde.chain.keys import verify
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.signing import verify_hex
from compute_horde.validator.testing.scripted import (
    MinerConnection,
    job_request,
    running,
)
from compute_horde.validator.testing.world import (
    JOB,
    OTHER,
    USER,
    VALIDATOR,
    WHOLE,
    World,
    finish,
    make_ready,
    result,
    whole_job,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_job_runs_through_every_step_in_order(world: World) -> None:
    miner = world.miner(whole_job)
    volume = {"volume_type": "inline", "contents": "eA==", "relative_path": None}
    limits = {"download_time_limit": 5, "execution_time_limit": 10, "upload_time_limit": 7}
    done = await world.run(status="completed", volume=volume, **limits)

    assert not miner.errors
    assert world.facilitator.history(JOB) == WHOLE
    assert [type(message).__name__ for message in miner.seen] == [
        "ValidatorAuthForMiner",
        "V0InitialJobRequest",
        "V0JobAcceptedReceiptRequest",
        "V0JobRequest",
        "V0JobFinishedReceiptRequest",
    ]
    auth, initial, accepted, request, finished = miner.seen
    assert isinstance(auth, vm.ValidatorAuthForMiner)
    assert auth.is_signed(verify)
    assert isinstance(initial, vm.V0InitialJobRequest)
    assert isinstance(request, vm.V0JobRequest)
    assert isinstance(accepted, vm.V0JobAcceptedReceiptRequest)
    assert isinstance(finished, vm.V0JobFinishedReceiptRequest)
    assert miner.urls == [f"ws://miner:8000/v0.1/validator_interface/{VALIDATOR.ss58_address}"]
    assert vm.frame_is_signed(initial.to_frame(), VALIDATOR.ss58_address, verify)
    assert vm.frame_is_signed(request.to_frame(), VALIDATOR.ss58_address, verify)
    assert initial.volume is not None
    assert request.volume is None
    assert request.docker_run_options_preset.value == "none"
    assert (initial.job_started_receipt_payload.ttl, accepted.payload.ttl) == (7, 3 + 300 + 5 + 5 + 10 + 7)
    assert (finished.payload.score_str, finished.payload.block_numbers) == ("22.000000", [])
    for payload, signature in (
        (initial.job_started_receipt_payload, initial.job_started_receipt_signature),
        (accepted.payload, accepted.signature),
        (finished.payload, finished.signature),
    ):
        assert verify_hex(verify, VALIDATOR.ss58_address, payload.signed_bytes(), signature)
    assert done.metadata is not None
    assert done.metadata.miner_response is not None
    assert done.metadata.miner_response.artifacts == {"/artifacts/a": "YQ=="}
    assert done.metadata.miner_response.exit_status == 0
    assert await world.receipts() == ["JobAcceptedReceipt", "JobFinishedReceipt", "JobStartedReceipt"]
    assert await world.incidents() == []


async def test_two_jobs_run_at_once(world: World) -> None:
    meeting = asyncio.Barrier(2)

    async def together(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await meeting.wait()
        await finish(miner, job)

    world.miner(together)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        for uuid in (JOB, OTHER):
            await world.facilitator.push(job_request(uuid, USER))
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed")
    assert world.facilitator.history(JOB) == world.facilitator.history(OTHER) == WHOLE


async def test_a_job_on_the_trusted_miner_costs_nothing_and_blames_nobody(world: World) -> None:
    world.limits |= {"trusted_miner_address": "trusted", "trusted_miner_port": 8000}
    miner = world.miner(whole_job, host="trusted", hotkey=TRUSTED_MINER_HOTKEY)
    await world.run(status="completed", on_trusted_miner=True, execution_time_limit=10)
    assert isinstance(miner.seen[0], vm.ValidatorAuthForMiner)
    assert miner.seen[0].miner_hotkey == TRUSTED_MINER_HOTKEY
    assert isinstance(miner.seen[-1], vm.V0JobFinishedReceiptRequest)
    assert miner.seen[-1].payload.score_str == "0.000000"


async def test_a_streaming_job_reports_its_server(world: World) -> None:
    async def stream(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.send(
            vm.V0VolumesReadyRequest(job_uuid=job),
            vm.V0StreamingJobReadyRequest(job_uuid=job, public_key="PEM", ip="1.2.3.4", port=6000),
            vm.V0ExecutionDoneRequest(job_uuid=job),
            result(job),
        )
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    world.miner(stream)
    await world.run(status="completed", streaming_details={"public_key": "PEM"})
    assert world.facilitator.history(JOB) == [*WHOLE[:4], "streaming_ready", *WHOLE[4:]]
    ready = await world.facilitator.wait_for(JOB, "streaming_ready")
    assert ready.metadata is not None
    assert ready.metadata.streaming_details is not None
    assert ready.metadata.streaming_details.streaming_server_port == 6000

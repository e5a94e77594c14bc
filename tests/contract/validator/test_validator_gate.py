"""Which jobs are let in (sections 3 and 5.4), and cheat reports (G1, G2)."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY, Message
from compute_horde.protocol.enums import (
    RejectionReason,
)
from compute_horde.protocol.facilitator_validator import V0JobCheated
from compute_horde.protocol.signing import SignatureScope, canonical_text, sign_payload
from compute_horde.validator.testing.scripted import (
    job_request,
    running,
)
from compute_horde.validator.testing.world import (
    JOB,
    MINER,
    OTHER,
    STRANGER,
    USER,
    VALIDATOR,
    WHOLE,
    World,
    whole_job,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("request_of", "text"),
    [
        (lambda: job_request(JOB, STRANGER), f"Signatory {STRANGER.ss58_address} is not in validator whitelist"),
        (lambda: job_request(JOB, USER).model_copy(update={"docker_image": "evil"}), "Bad signature"),
        (lambda: job_request(JOB, USER, timestamp_ns=1_735_689_600_000_000_000), "s old, the limit is 300 s"),
    ],
    ids=["stranger", "other-body", "too-old"],
)
async def test_a_bad_signature_is_rejected_without_received(
    world: World, request_of: Callable[[], Message], text: str
) -> None:
    miner = world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(request_of())
        update = await world.facilitator.wait_for(JOB, "rejected")
        await world.facilitator.push(request_of())  # redelivered: still one answer
        await asyncio.sleep(0.05)
    assert world.facilitator.history(JOB) == ["rejected"]
    assert update.metadata is not None
    assert update.metadata.job_rejection_details is not None
    assert update.metadata.job_rejection_details.reason is RejectionReason.INVALID_SIGNATURE
    assert text in update.metadata.job_rejection_details.message
    assert miner.urls == []


async def test_a_replayed_signature_is_rejected_and_a_redelivered_job_is_not_run_twice(world: World) -> None:
    miner = world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        request = job_request(JOB, USER)
        await world.facilitator.push(request)
        await world.facilitator.push(request)
        await world.facilitator.wait_for(JOB, "completed")
        await world.facilitator.push(request.model_copy(update={"uuid": OTHER}))
        update = await world.facilitator.wait_for(OTHER, "rejected")
    assert update.metadata is not None
    assert update.metadata.job_rejection_details is not None
    assert "already used" in update.metadata.job_rejection_details.message
    assert world.facilitator.history(JOB) == WHOLE
    assert len(miner.urls) == 1


async def test_the_validators_own_hotkey_may_sign(world: World) -> None:
    world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, VALIDATOR))
        await world.facilitator.wait_for(JOB, "completed")


def cheat(signer: Any, form: str = "text", job: str = JOB, trusted: str = OTHER) -> V0JobCheated:
    payload: dict[str, JsonValue] = {"job_uuid": job, "trusted_job_uuid": trusted, "details": None}
    signed: JsonValue = canonical_text(payload) if form == "text" else payload
    signature = sign_payload(signer, signed, SignatureScope.FULL_REQUEST, 1)
    return V0JobCheated(signature=signature, job_uuid=job, trusted_job_uuid=trusted)


@pytest.mark.parametrize("form", ["text", "object"])
@pytest.mark.parametrize("with_details", [True, False])
async def test_a_cheat_report_is_verified_in_both_forms_and_counts_once(
    world: World, form: str, with_details: bool
) -> None:
    world.limits |= {"trusted_miner_address": "trusted", "trusted_miner_port": 8000}
    world.miner(whole_job)
    world.miner(whole_job, host="trusted", hotkey=TRUSTED_MINER_HOTKEY)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(cheat(USER, form))  # before the job: dropped
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.push(job_request(OTHER, USER, on_trusted_miner=True))
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed")
        for bad in (cheat(STRANGER), cheat(USER, job=OTHER, trusted=JOB), cheat(USER, trusted=JOB)):
            await world.facilitator.push(bad)
        await world.facilitator.push(cheat(USER).model_copy(update={"details": "changed"}))
        await world.facilitator.push(cheat(VALIDATOR))  # another signer's job
        await asyncio.sleep(0.05)
        assert await world.incidents() == []
        report = cheat(USER, form)
        frame = report.to_frame() if with_details else report.model_dump_json(exclude={"details"})
        for _ in range(2):
            await world.facilitator.push(frame)
        async with asyncio.timeout(5):
            while not await world.incidents():  # noqa: ASYNC110 - nothing else tells of it
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # the repetition
    assert await world.incidents() == [(MINER.ss58_address, "job_cheated")]

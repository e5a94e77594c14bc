"""Which jobs are cross-validated, and how the second one is created."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.sdk.cross import (
    ASKED,
    POST,
    REFUSED,
    SPEC,
    TRUSTED_UPLOAD,
    UPLOAD,
    bodies,
    chosen,
    finish,
    pair,
    state,
    until,
)

from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation
from compute_horde_sdk._internal.crossvalidation.verdict import CrossValidationState
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.specs.volumes import HTTPInputVolume
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wiring import Wiring


async def test_the_job_is_created_and_then_its_repetition() -> None:
    fake = FakeFacilitator()
    spec = replace(
        ASKED,
        env={"A": "1"},
        input_volumes={"/volume/i": HTTPInputVolume("http://store.test/in")},
        output_volumes={"/output/o": UPLOAD},
        trusted_output_volumes={"/output/o": TRUSTED_UPLOAD},
        execution_time_limit_sec=17,
    )
    async with fake.client(job_queue="mine") as client:
        job, trusted = await pair(client, spec)
    own, repeated = bodies(fake)
    assert own["run_cross_validation"] is True
    assert (own["on_trusted_miner"], own["tag"]) == (False, "mine")
    assert repeated["cross_validates"] == job.uuid
    assert (repeated["on_trusted_miner"], repeated["tag"]) == (True, f"cross-validates:{job.uuid}")
    assert "run_cross_validation" not in repeated
    assert [upload["url"] for upload in repeated["uploads"]] == [TRUSTED_UPLOAD.url]
    same = own.keys() - {"on_trusted_miner", "tag", "run_cross_validation", "uploads"}
    assert {name: own[name] for name in same} == {name: repeated[name] for name in same}
    assert fake.jobs[job.uuid].trusted_job_uuid == trusted
    assert state(job) == "pending"


async def test_without_trusted_output_volumes_the_repetition_uploads_nothing() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        await pair(client, replace(ASKED, output_volumes={"/output/o": UPLOAD}))
    assert bodies(fake)[1]["uploads"] == []


async def test_a_spec_that_is_changed_meanwhile_changes_no_repetition() -> None:
    fake = FakeFacilitator()
    env = {"SEED": "1"}
    async with fake.client() as client:
        creating = asyncio.create_task(client.create_job(replace(ASKED, env=env)))
        await until(lambda: bodies(fake))
        env["SEED"] = "2"
        await creating
    assert [body["env"] for body in bodies(fake)] == [{"SEED": "1"}] * 2


async def test_wrong_trusted_output_volumes_are_found_before_anything_is_sent() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        with pytest.raises(ComputeHordeValidationError) as caught:
            await client.create_job(replace(ASKED, trusted_output_volumes={"/somewhere": UPLOAD}))
    assert caught.value.field == "trusted_output_volumes['/somewhere']"
    assert not fake.requests


@pytest.mark.parametrize("asked", [{"streaming": True}, {"on_trusted_miner": True}])
async def test_what_cannot_be_repeated_is_refused_before_anything_is_sent(asked: dict[str, Any]) -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        with pytest.raises(ComputeHordeValidationError) as caught:
            await client.create_job("always_on.test", "SN0", "alpine", run_cross_validation=True, **asked)
    assert caught.value.field == "run_cross_validation"
    assert not fake.requests


async def test_a_plan_of_the_client_draws_for_each_job() -> None:
    fake = FakeFacilitator()
    draws = iter([0.5, 0.01, 0.02, 0.0, 0.0])
    async with fake.client(sample=lambda: next(draws), **chosen(CrossValidation(0.02))) as client:
        jobs = [await client.create_job(SPEC) for _ in range(4)]
        assert [state(job) for job in jobs] == [None, "pending", None, "pending"]
        trusted = await client.create_job(SPEC, on_trusted_miner=True)
        assert trusted.cross_validation is None
        never = await client.create_job(replace(SPEC, cross_validation=CrossValidation(0.0)))
        assert never.cross_validation is None
    assert [body.get("run_cross_validation", False) for body in bodies(fake) if "cross_validates" not in body] == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_chance_is_not_the_program_s() -> None:
    assert 0 <= Wiring().sample() < 1
    assert Wiring().sample is not Wiring().jitter


async def test_a_client_checks_its_plan() -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        FakeFacilitator().client(client_options={"cross_validation": 0.02})
    assert caught.value.field == "cross_validation"


async def test_a_repetition_that_cannot_be_created_costs_only_the_verdict() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        creating = asyncio.create_task(client.create_job(ASKED))
        await until(lambda: fake.jobs)
        fake.fail(POST, REFUSED)
        job = await creating
        report = job.cross_validation
        assert report is not None
        assert report.state is CrossValidationState.INCONCLUSIVE
        assert "could not be created" in report.reason
        assert await job.wait_for_cross_validation() is report
        finish(fake, job.uuid)
        await job.wait()
        assert job.result is not None

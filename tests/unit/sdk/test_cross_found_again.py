"""Jobs found again by another process, on our facilitator and on one of the existing network."""

import asyncio
from dataclasses import replace

import httpx
import pytest
from tests.unit.sdk.cross import (
    ASKED,
    POST,
    REFUSED,
    SPEC,
    UPLOAD,
    bodies,
    chosen,
    finish,
    horde_fail,
    pair,
    state,
    until,
)

from compute_horde.protocol.extensions import Extension
from compute_horde_sdk._internal.crossvalidation.comparators import numeric
from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation
from compute_horde_sdk._internal.crossvalidation.verdict import CrossValidationReport, CrossValidationState
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeNotFoundError,
)
from compute_horde_sdk._internal.port import Order
from compute_horde_sdk._internal.specs.volumes import HTTPInputVolume
from compute_horde_sdk._internal.wire.fake import FakeFacilitator


async def test_a_job_that_is_found_again_knows_its_repetition() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        finish(fake, job.uuid, b"forged")
        finish(fake, trusted)
    async with fake.client() as other:
        found = await other.get_job(job.uuid)
        assert found.cross_validation == CrossValidationReport(
            CrossValidationState.PENDING, trusted, "no verdict yet"
        )
        assert (await found.wait_for_cross_validation()).reported
        assert (await other.get_job(trusted)).cross_validation is None
    assert len(fake.jobs) == 2


async def test_a_job_that_is_found_again_is_compared_with_the_client_s_plan() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
    finish(fake, job.uuid, b"1.01")
    finish(fake, trusted, b"1.0")
    async with fake.client(**chosen(CrossValidation(0.0, numeric(0.1), report=False))) as other:
        report = await (await other.get_job(job.uuid)).wait_for_cross_validation()
    assert report.state is CrossValidationState.MATCH


async def test_a_job_that_nobody_cross_validates() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        for trusted in (False, True):
            job = await client.create_job(SPEC, on_trusted_miner=trusted)
            assert job.cross_validation is None
            with pytest.raises(ComputeHordeError) as caught:
                await job.wait_for_cross_validation()
            assert caught.value.code == "not_cross_validated"


async def half_created(fake: FakeFacilitator) -> str:
    """A job whose process ended before it could create the repetition."""
    spec = replace(
        ASKED,
        env={"A": "1"},
        output_volumes={"/output/o": UPLOAD},
        input_volumes={"/volume/i": HTTPInputVolume("http://store.test/in")},
    )
    async with fake.client() as client:
        return (await client._horde.create(Order(spec, "validator"))).uuid


async def test_a_repetition_that_was_never_created_is_created_by_whoever_waits() -> None:
    fake = FakeFacilitator()
    job_uuid = await half_created(fake)
    async with fake.client() as client:
        job = await client.get_job(job_uuid)
        assert job.cross_validation == CrossValidationReport(CrossValidationState.PENDING, None, "no verdict yet")
        waiting = asyncio.create_task(job.wait_for_cross_validation())
        await until(lambda: len(fake.jobs) > 1)
        trusted = next(uuid for uuid in fake.jobs if uuid != job_uuid)
        for one in (job_uuid, trusted):
            finish(fake, one, output_hashes={"o": "ab"})
        report = await waiting
    assert (report.state, report.trusted_job_uuid) == ("match", trusted)
    own, repeated = bodies(fake)
    assert repeated["uploads"] == []
    same = own.keys() - {"on_trusted_miner", "tag", "run_cross_validation", "uploads"}
    assert {name: own[name] for name in same} == {name: repeated[name] for name in same}
    assert list(repeated["volumes"][0]) == list(own["volumes"][0])


async def test_two_processes_create_one_repetition() -> None:
    fake = FakeFacilitator()
    job_uuid = await half_created(fake)
    async with fake.client() as one, fake.client() as other:
        jobs = [await client.get_job(job_uuid) for client in (one, other)]
        waiting = [asyncio.create_task(job.wait_for_cross_validation()) for job in jobs]
        await until(lambda: len(bodies(fake)) > 2 and len(fake.jobs) > 1)
        for each in list(fake.jobs):
            finish(fake, each, output_hashes={})
        reports = await asyncio.gather(*waiting)
    assert len(fake.jobs) == 2
    assert reports[0] == reports[1]
    assert reports[0].state is CrossValidationState.MATCH


async def test_a_repetition_needs_no_creation_when_the_horde_failed_the_job() -> None:
    fake = FakeFacilitator()
    job_uuid = await half_created(fake)
    horde_fail(fake, job_uuid)
    async with fake.client() as client:
        report = await (await client.get_job(job_uuid)).wait_for_cross_validation()
    assert report.state is CrossValidationState.INCONCLUSIVE
    assert len(fake.jobs) == 1


async def test_a_repetition_that_is_refused_later_is_inconclusive_and_one_out_of_reach_can_be_tried_again() -> (
    None
):
    fake = FakeFacilitator()
    job_uuid = await half_created(fake)
    async with fake.client(retry_s=0.0) as client:
        job = await client.get_job(job_uuid)
        fake.fail(POST, *(httpx.ConnectError("gone") for _ in range(50)))
        with pytest.raises(ComputeHordeConnectionError):
            await job.wait_for_cross_validation()
        assert state(job) == "pending"
        fake.faults.clear()
        fake.fail(POST, REFUSED)
        report = await job.wait_for_cross_validation()
        assert report.state is CrossValidationState.INCONCLUSIVE
        assert "could not be created" in report.reason


async def test_trusted_uploads_that_turn_wrong_meanwhile_cost_only_the_verdict() -> None:
    fake = FakeFacilitator()
    uploads = {"/output/o": UPLOAD}
    async with fake.client() as client:
        creating = asyncio.create_task(client.create_job(replace(ASKED, trusted_output_volumes=uploads)))
        await until(lambda: bodies(fake))
        uploads["/elsewhere"] = UPLOAD
        job = await creating
    assert state(job) == "inconclusive"


async def test_a_facilitator_that_refuses_a_second_repetition_but_knows_no_first() -> None:
    fake = FakeFacilitator()
    job_uuid = await half_created(fake)
    async with fake.client() as client:
        job = await client.get_job(job_uuid)
        fake.fail(POST, httpx.Response(400, json={"cross_validates": ["This job has been repeated already."]}))
        report = await job.wait_for_cross_validation()
    assert "cross_validates" in report.reason


async def test_an_account_of_a_job_that_cannot_be_repeated() -> None:
    fake = FakeFacilitator()
    job_uuid = await half_created(fake)
    fake.jobs[job_uuid] = fake.jobs[job_uuid].model_copy(update={"docker_image": ""})
    async with fake.client() as client:
        report = await (await client.get_job(job_uuid)).wait_for_cross_validation()
    assert "cannot be repeated: docker_image" in report.reason


async def test_a_job_that_is_gone_is_an_error() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, _ = await pair(client)
        del fake.jobs[job.uuid]
        with pytest.raises(ComputeHordeNotFoundError):
            await job.wait_for_cross_validation()


# a facilitator of the existing network


def older() -> FakeFacilitator:
    return FakeFacilitator(extensions=frozenset())


async def test_an_older_facilitator_is_enough() -> None:
    fake = older()
    async with fake.client() as client:
        job, trusted = await pair(client)
        assert fake.jobs[job.uuid].run_cross_validation is False
        finish(fake, job.uuid, b"forged")
        finish(fake, trusted)
        report = await job.wait_for_cross_validation()
    assert (report.state, report.reported) == ("mismatch", True)


async def test_an_older_facilitator_finds_the_repetition_by_its_queue() -> None:
    fake = older()
    async with fake.client() as client:
        job, trusted = await pair(client)
        await client.create_job(SPEC)
        other, _ = await pair(client)
    finish(fake, job.uuid)
    finish(fake, trusted)
    async with fake.client() as client:
        found = await client.get_job(job.uuid)
        assert state(found) is None
        report = await found.wait_for_cross_validation()
        assert (report.state, report.trusted_job_uuid) == ("match", trusted)
        assert found.cross_validation is report
        with pytest.raises(ComputeHordeError) as caught:
            await (await client.create_job(SPEC)).wait_for_cross_validation()
        assert caught.value.code == "not_cross_validated"
    assert other.uuid != job.uuid


async def test_of_several_repetitions_all_processes_take_the_first() -> None:
    fake = older()
    async with fake.client() as client:
        job, trusted = await pair(client)
    async with fake.client(job_queue=fake.jobs[trusted].tag) as client:
        await client.create_job(SPEC)
        await client.create_job(SPEC, on_trusted_miner=True)
        for each in list(fake.jobs):
            finish(fake, each)
        report = await (await client.get_job(job.uuid)).wait_for_cross_validation()
    assert report.trusted_job_uuid == trusted


def test_our_facilitator_says_so() -> None:
    assert Extension.CROSS_VALIDATION in FakeFacilitator().extensions

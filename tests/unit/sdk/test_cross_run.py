"""Cross-validation from the end of both jobs to the verdict and the report, over the fake facilitator."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.sdk.cross import (
    ASKED,
    REFUSED,
    REPORT,
    SPEC,
    UPLOAD,
    chosen,
    fail,
    finish,
    horde_fail,
    pair,
    state,
)

from compute_horde_sdk._internal.crossvalidation.comparators import numeric
from compute_horde_sdk._internal.crossvalidation.comparison import Difference
from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation
from compute_horde_sdk._internal.crossvalidation.verdict import CrossValidationState
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeResponseError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.wire.fake import FakeFacilitator


async def test_equal_results_match() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        digests: dict[str, Any] = {"image_digest": "sha256:1", "output_hashes": {"o": "ab"}}
        finish(fake, job.uuid, **digests)
        await job.wait()
        assert state(job) == "pending"
        finish(fake, trusted, **digests)
        report = await job.wait_for_cross_validation(5)
        assert job.cross_validation is report
        assert await job.wait_for_cross_validation() is report
        assert (report.state, report.trusted_job_uuid, report.reported) == ("match", trusted, False)
        assert report.evidence is not None
        assert report.evidence.comparator == "byte_exact()"
        assert report.evidence.own.outputs == report.evidence.trusted.outputs == {"/output/o": "ab"}
        assert [side.exit_code for side in (report.evidence.own, report.evidence.trusted)] == [0, 0]
    assert not fake.reports


async def test_a_mismatch_is_reported_with_the_evidence() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        finish(fake, job.uuid, b"forged")
        finish(fake, trusted, b"true")
        report = await job.wait_for_cross_validation()
    assert report.state is CrossValidationState.MISMATCH
    assert (report.reported, report.report_error) == (True, None)
    assert report.evidence is not None
    (sent,) = fake.reports
    assert (sent["job_uuid"], sent["trusted_job_uuid"]) == (job.uuid, trusted)
    assert sent["details"] == report.evidence.to_json()
    assert [difference["path"] for difference in sent["details"]["differences"]] == ["/a/x"]


async def test_a_caller_who_asked_not_to_reports_nothing() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client, replace(SPEC, cross_validation=CrossValidation(report=False)))
        finish(fake, job.uuid, b"forged")
        finish(fake, trusted)
        report = await job.wait_for_cross_validation()
        assert (report.state, report.reported) == ("mismatch", False)
        assert await job.wait_for_cross_validation() is report
    assert not fake.sent("POST", REPORT)


async def test_a_job_that_was_reported_before_counts_as_reported() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        await client.report_cheated_job(job.uuid, trusted)
        finish(fake, job.uuid, b"forged")
        finish(fake, trusted)
        report = await job.wait_for_cross_validation()
    assert (report.state, report.reported, report.report_error) == ("mismatch", True, None)


async def test_a_report_that_fails_hides_no_verdict_and_is_tried_again() -> None:
    fake = FakeFacilitator()
    fake.fail(REPORT, REFUSED)
    async with fake.client() as client:
        job, trusted = await pair(client)
        finish(fake, job.uuid, b"forged")
        finish(fake, trusted)
        report = await job.wait_for_cross_validation()
        assert (report.state, report.reported) == ("mismatch", False)
        assert isinstance(report.report_error, ComputeHordeResponseError)
        again = await job.wait_for_cross_validation()
        assert (again.reported, again.report_error, again.evidence) == (True, None, report.evidence)


async def test_what_the_caller_does_with_the_result_accuses_nobody() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        finish(fake, job.uuid)
        await job.wait()
        assert job.result is not None
        job.result.artifacts.clear()
        finish(fake, trusted)
        assert (await job.wait_for_cross_validation()).state is CrossValidationState.MATCH


async def test_artifacts_that_arrive_damaged_are_inconclusive() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        finish(fake, job.uuid, artifacts={"/a/x": "***"})
        finish(fake, trusted)
        report = await job.wait_for_cross_validation()
    assert report.state is CrossValidationState.INCONCLUSIVE
    assert "damaged" in report.reason
    assert report.evidence is not None
    assert report.evidence.not_compared


@pytest.mark.parametrize("hashes", [{}, {"output_hashes": {"o": "ab"}}])
async def test_uploads_without_hashes_are_inconclusive_unless_the_caller_compares(hashes: dict[str, Any]) -> None:
    fake = FakeFacilitator()
    verdicts = []
    async with fake.client() as client:
        for plan in (None, CrossValidation(comparator=lambda own, trusted: True)):
            spec = replace(ASKED, output_volumes={"/output/o": UPLOAD}, cross_validation=plan)
            job, trusted = await pair(client, spec)
            finish(fake, job.uuid)
            finish(fake, trusted, **hashes)
            verdicts.append((await job.wait_for_cross_validation()).state.value)
    assert verdicts == ["inconclusive", "match"]


async def test_other_images_are_inconclusive_with_evidence() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        finish(fake, job.uuid, b"forged", image_digest="sha256:1")
        finish(fake, trusted, image_digest="sha256:2")
        report = await job.wait_for_cross_validation()
    assert report.state is CrossValidationState.INCONCLUSIVE
    assert report.evidence is not None
    assert report.evidence.comparator == ""
    assert not fake.reports


async def test_a_failure_of_the_trusted_run_is_inconclusive() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        finish(fake, job.uuid)
        horde_fail(fake, trusted)
        report = await job.wait_for_cross_validation()
    assert report.state is CrossValidationState.INCONCLUSIVE
    assert "trusted miner ended as horde_failed" in report.reason


async def test_a_job_that_the_horde_failed_waits_for_no_repetition() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, _ = await pair(client)
        horde_fail(fake, job.uuid)
        report = await job.wait_for_cross_validation()
    assert report.state is CrossValidationState.INCONCLUSIVE
    assert report.evidence is None


@pytest.mark.parametrize(("trusted_exit", "expected"), [(3, "match"), (4, "inconclusive"), (None, "mismatch")])
async def test_failures_of_the_job_itself(trusted_exit: int | None, expected: str) -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        fail(fake, job.uuid, 3)
        if trusted_exit is None:
            finish(fake, trusted)
        else:
            fail(fake, trusted, trusted_exit)
        report = await job.wait_for_cross_validation()
    assert report.state == expected
    assert len(fake.reports) == (expected == "mismatch")


async def test_a_repetition_that_is_gone_is_inconclusive() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        finish(fake, job.uuid)
        del fake.jobs[trusted]
        report = await job.wait_for_cross_validation()
    assert report.state is CrossValidationState.INCONCLUSIVE
    assert "no longer has the repetition" in report.reason


# comparators


async def test_a_comparator_of_the_caller_decides() -> None:
    fake = FakeFacilitator()
    async with fake.client(**chosen(CrossValidation(comparator=numeric(rtol=0.1)))) as client:
        job, trusted = await pair(client, SPEC)
        finish(fake, job.uuid, b"1.05")
        finish(fake, trusted, b"1.0")
        report = await job.wait_for_cross_validation()
    assert report.state is CrossValidationState.MATCH
    assert report.evidence is not None
    assert report.evidence.comparator == "numeric(rtol=0.1, atol=0.0)"


async def test_an_async_comparator_names_what_differs() -> None:
    async def by_length(own: Any, trusted: Any) -> list[Difference]:
        await asyncio.sleep(0)
        sizes = [str(len(side.artifacts["/a/x"])) for side in (own, trusted)]
        return [] if sizes[0] == sizes[1] else [Difference("length", "/a/x", *sizes)]

    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client, replace(ASKED, cross_validation=CrossValidation(0.0, by_length)))
        finish(fake, job.uuid, b"123")
        finish(fake, trusted, b"1234")
        report = await job.wait_for_cross_validation()
    assert report.evidence is not None
    assert report.evidence.differences == (Difference("length", "/a/x", "3", "4"),)
    assert "by_length" in fake.reports[0]["details"]["comparator"]


async def test_what_a_comparator_raises_leaves_and_nothing_is_reported() -> None:
    answers: list[Any] = [ValueError("mine"), "nonsense", False]

    def comparator(own: object, trusted: object) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        found: bool = answer
        return found

    fake = FakeFacilitator()
    async with fake.client(**chosen(CrossValidation(comparator=comparator))) as client:
        job, trusted = await pair(client, SPEC)
        finish(fake, job.uuid)
        finish(fake, trusted)
        with pytest.raises(ValueError, match="mine"):
            await job.wait_for_cross_validation()
        assert state(job) == "pending"
        with pytest.raises(ComputeHordeValidationError):
            await job.wait_for_cross_validation()
        assert not fake.reports
        assert (await job.wait_for_cross_validation()).reported

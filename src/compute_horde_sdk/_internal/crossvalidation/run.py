"""The cross-validation of one job, from its creation or from what the facilitator knows, to the verdict."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from compute_horde_sdk._internal.crossvalidation.comparators import byte_exact
from compute_horde_sdk._internal.crossvalidation.comparison import ask, name_of
from compute_horde_sdk._internal.crossvalidation.evidence import (
    MAX_REPORT_BYTES,
    CrossValidationEvidence,
    evidence_of,
)
from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation
from compute_horde_sdk._internal.crossvalidation.repetition import (
    create_repetition,
    find_repetition,
)
from compute_horde_sdk._internal.crossvalidation.verdict import (
    CrossValidationReport,
    CrossValidationState,
    Ended,
    Finding,
    after_comparing,
    before_comparing,
    inconclusive,
    unusable,
)
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeError,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
)
from compute_horde_sdk._internal.models import ComputeHordeJobResult
from compute_horde_sdk._internal.sharing import Shared
from compute_horde_sdk._internal.specs.volumes import OutputVolume

if TYPE_CHECKING:  # the job makes its run, so at run time it is the one that imports
    from compute_horde_sdk._internal.job import ComputeHordeJob

ALREADY_REPORTED = "already exists"
"""In the facilitator's answer to a second report of the same job."""


class CrossValidationRun:
    """Everything about one job's cross-validation; of a job that has none, only that."""

    def __init__(self, job: "ComputeHordeJob", plan: CrossValidation | None) -> None:
        """``plan``: the client's, for a job that was found again."""
        self._job = job
        self._plan = plan or CrossValidation()
        self._asked = False
        self._trusted_uuid: str | None = None
        self._verdict: CrossValidationReport | None = None
        self._shared = Shared(self._judged_and_reported)

    @property
    def report(self) -> CrossValidationReport | None:
        """What is known; None for a job that is not cross-validated, as far as is known."""
        if self._verdict is not None:
            return self._verdict
        snapshot = self._job._snapshot
        trusted = self._trusted_uuid or snapshot.trusted_job_uuid
        if not (self._is_asked() or trusted):
            return None
        return CrossValidationReport(CrossValidationState.PENDING, trusted, "no verdict yet")

    async def begin(self, plan: CrossValidation, uploads: Mapping[str, OutputVolume] | None) -> None:
        """Create the repetition of a job that was just created. Whatever fails becomes the verdict."""
        self._plan, self._asked = plan, True
        try:
            self._trusted_uuid = await create_repetition(self._job._client._horde, self._job._snapshot, uploads)
        except ComputeHordeError as error:
            self._verdict = self._verdict_of(_not_created(error))

    async def wait(self) -> CrossValidationReport:
        """The verdict. Callers at the same time share one computation; a mismatch is reported once.

        :raises ComputeHordeError: the job is not cross-validated; or refused, or out of reach.
        """
        known = self._verdict
        if known is not None and not self._is_to_be_reported(known):
            return known
        return await self._shared()

    async def _judged_and_reported(self) -> CrossValidationReport:
        if self._verdict is None:
            self._verdict = await self._judged()
        if self._is_to_be_reported(self._verdict):
            self._verdict = await self._reported(self._verdict)
        return self._verdict

    async def _judged(self) -> CrossValidationReport:
        job = self._job
        if self._trusted_uuid is None:
            await job.refresh_from_facilitator()
            if job.result is not None and self._is_asked() and (finding := unusable(_ended(job))):
                return self._verdict_of(finding)
            try:
                self._trusted_uuid = await self._found_or_repeated()
            except ComputeHordeError as error:
                if error.retryable or not self._is_asked():
                    raise
                return self._verdict_of(_not_created(error))
        await job.wait()
        if finding := unusable(_ended(job)):
            return self._verdict_of(finding)
        # fetched anew: the caller may have changed what is in job.result
        own = await job._client.get_job(job.uuid)
        await own.wait()
        try:
            trusted = await job._client.get_job(self._trusted_uuid)
            await trusted.wait()
        except ComputeHordeNotFoundError:
            return self._verdict_of(inconclusive("the facilitator no longer has the repetition"))
        return await self._compared(own, trusted)

    async def _found_or_repeated(self) -> str:
        horde, snapshot = self._job._client._horde, self._job._snapshot
        found = None if snapshot.on_trusted_miner else await find_repetition(horde, snapshot)
        if found is not None:
            return found
        if not self._is_asked():
            raise ComputeHordeError(
                f"job {self._job.uuid} is not cross-validated",
                code="not_cross_validated",
                hint="Create it with run_cross_validation=True, or with a CrossValidation that chooses it.",
            )
        return await create_repetition(horde, snapshot)

    async def _compared(self, own: "ComputeHordeJob", trusted: "ComputeHordeJob") -> CrossValidationReport:
        mine, theirs = _ended(own), _ended(trusted)
        evidence = await asyncio.to_thread(_evidence, mine, theirs)
        if finding := before_comparing(mine, theirs):
            return self._verdict_of(finding, evidence)
        comparator = self._plan.comparator or byte_exact()
        evidence = replace(evidence, comparator=name_of(comparator))
        answer = await ask(comparator, mine.result, theirs.result)
        uploads = self._plan.comparator is None and bool(own._snapshot.order.get("uploads"))
        return self._verdict_of(after_comparing(answer, mine, theirs, uploads), evidence)

    async def _reported(self, verdict: CrossValidationReport) -> CrossValidationReport:
        evidence, trusted = verdict.evidence, verdict.trusted_job_uuid or ""
        details = evidence.to_json(MAX_REPORT_BYTES) if evidence else None
        try:
            await self._job._client.report_cheated_job(self._job.uuid, trusted, details=details)
        except ComputeHordeError as error:
            if not _was_reported_before(error):
                return replace(verdict, report_error=error)
        return replace(verdict, reported=True, report_error=None)

    def _is_asked(self) -> bool:
        return self._asked or self._job._snapshot.run_cross_validation

    def _is_to_be_reported(self, verdict: CrossValidationReport) -> bool:
        return verdict.state is CrossValidationState.MISMATCH and self._plan.report and not verdict.reported

    def _verdict_of(
        self, finding: Finding, evidence: CrossValidationEvidence | None = None
    ) -> CrossValidationReport:
        if evidence is not None:
            evidence = replace(evidence, differences=finding.differences, not_compared=finding.not_compared)
        return CrossValidationReport(finding.state, self._trusted_uuid, finding.reason, evidence)


def _ended(job: "ComputeHordeJob") -> Ended:
    return Ended(job.uuid, job.status, job.result or ComputeHordeJobResult(), job.error)


def _evidence(own: Ended, trusted: Ended) -> CrossValidationEvidence:
    sides = [evidence_of(run.job_uuid, run.status, run.result) for run in (own, trusted)]
    return CrossValidationEvidence(own=sides[0], trusted=sides[1])


def _not_created(error: ComputeHordeError) -> Finding:
    return inconclusive(f"the repetition could not be created: {error.message}")


def _was_reported_before(error: ComputeHordeError) -> bool:
    return isinstance(error, ComputeHordeResponseError) and ALREADY_REPORTED in error.message

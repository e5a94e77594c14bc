"""From the ends of two runs to a verdict. Pure functions.

A verdict of ``mismatch`` accuses a miner, so it needs a difference that an honest one cannot explain: whatever the
trusted run, the network, the machine or the clock may have done is ``inconclusive``.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from compute_horde.protocol.enums import Fault
from compute_horde_sdk._internal.crossvalidation.comparing import Walk, unequal_bytes
from compute_horde_sdk._internal.crossvalidation.comparison import Answer, Comparison, Difference
from compute_horde_sdk._internal.crossvalidation.evidence import CrossValidationEvidence
from compute_horde_sdk._internal.exceptions import ComputeHordeError, ComputeHordeJobError
from compute_horde_sdk._internal.models import ComputeHordeJobResult, ComputeHordeJobStatus

SIGNALLED = 128
"""Exit codes above this are signals, such as for a lack of memory: as likely the machine's doing as the job's."""


class CrossValidationState(StrEnum):
    """``pending``: not both runs have ended and been compared. The other three are final."""

    PENDING = "pending"
    MATCH = "match"
    MISMATCH = "mismatch"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class CrossValidationReport:
    """What is known of a job's cross-validation: the value of ``job.cross_validation``.

    * ``trusted_job_uuid``: the repetition on the trusted miner; None while there is none
    * ``reason``: one sentence
    * ``evidence``: of both runs; None where one of them left nothing to look at
    * ``reported``: whether the validator has been told of a mismatch, now or before
    * ``report_error``: why it could not be told; the verdict stands

    A miner can always bring about ``inconclusive`` (by failing, or by naming another image), at the price of its
    result being of no use; a miner whose jobs end so more often than others' deserves a look.
    """

    state: CrossValidationState
    trusted_job_uuid: str | None = None
    reason: str = ""
    evidence: CrossValidationEvidence | None = None
    reported: bool = False
    report_error: ComputeHordeError | None = None

    def __repr__(self) -> str:
        return (
            f"CrossValidationReport(state={self.state.value!r}, trusted_job_uuid={self.trusted_job_uuid!r}, "
            f"reason={self.reason!r}, reported={self.reported!r})"
        )


class Ended(NamedTuple):
    """One run that ended."""

    job_uuid: str
    status: ComputeHordeJobStatus
    result: ComputeHordeJobResult
    error: ComputeHordeJobError | None = None

    @property
    def said(self) -> str:
        """How it ended, in words."""
        error = self.error
        return self.status.value if error is None else f"{self.status.value} ({error.code}: {error.message[:200]})"


class Finding(NamedTuple):
    """A verdict and why."""

    state: CrossValidationState
    reason: str
    differences: tuple[Difference, ...] = ()
    not_compared: tuple[str, ...] = ()


def unusable(own: Ended) -> Finding | None:
    """The verdict where the user's job alone settles it: nothing it left can agree or disagree."""
    if own.status.is_successful() or _failed_by_itself(own):
        return None
    return inconclusive(f"the job ended as {own.said}, which is not its own doing")


def before_comparing(own: Ended, trusted: Ended) -> Finding | None:
    """The verdict where the two ends settle it; None when the results have to be compared."""
    if _failed_by_itself(own):
        return _of_failure(own, trusted)
    if not trusted.status.is_successful():
        return inconclusive(f"the repetition on the trusted miner ended as {trusted.said}")
    mine, theirs = own.result.image_digest, trusted.result.image_digest
    if mine and theirs and mine != theirs:
        return inconclusive(
            f"two different images ran: {mine[:100]!r} and, on the trusted miner, {theirs[:100]!r}"
        )
    return None


def after_comparing(answer: Answer, own: Ended, trusted: Ended, unseen_outputs: bool) -> Finding:
    """The verdict of a comparator's answer.

    :param unseen_outputs: the job uploads files, and no comparator of the caller's vouches for them.
    """
    found = _comparison(answer, own, trusted)
    if found.differences:
        return _of_differences(found, own, trusted)
    hashes = own.result.output_hashes, trusted.result.output_hashes
    if not found.not_compared and unseen_outputs and None in hashes:
        found = Comparison(not_compared=("the job uploads files, and not both sides tell their hashes",))
    if found.not_compared:
        more = f", and {len(found.not_compared) - 1} more" if len(found.not_compared) > 1 else ""
        return inconclusive(f"{found.not_compared[0]}{more}", found.not_compared)
    return Finding(CrossValidationState.MATCH, "the two results agree")


def inconclusive(reason: str, not_compared: tuple[str, ...] = ()) -> Finding:
    """The verdict that says nothing about the miner."""
    return Finding(CrossValidationState.INCONCLUSIVE, reason, (), not_compared)


def _failed_by_itself(run: Ended) -> bool:
    failed = run.status is ComputeHordeJobStatus.FAILED
    return failed and run.error is not None and run.error.fault is Fault.USER


def _of_failure(own: Ended, trusted: Ended) -> Finding:
    mine, theirs = own.error, trusted.error
    exit_code = own.result.exit_code
    if mine and theirs and _failed_by_itself(trusted):
        if (mine.code, exit_code) == (theirs.code, trusted.result.exit_code):
            return Finding(CrossValidationState.MATCH, f"both failed in the same way: {mine.code}")
        return inconclusive(f"the job ended as {own.said}, on the trusted miner as {trusted.said}")
    if not trusted.status.is_successful():
        return inconclusive(f"the repetition on the trusted miner ended as {trusted.said}")
    if mine and mine.code == "nonzero_exit" and exit_code is not None and 0 < exit_code <= SIGNALLED:
        return Finding(
            CrossValidationState.MISMATCH,
            f"the job ended with exit code {exit_code}, but completed on the trusted miner",
            (Difference("status", "", own.status.value, trusted.status.value),),
        )
    return inconclusive(
        f"the job ended as {own.said}, which the machine or the network can bring about, "
        "and completed on the trusted miner"
    )


def _of_differences(found: Comparison, own: Ended, trusted: Ended) -> Finding:
    if own.result.timed_out or trusted.result.timed_out:
        stopped = "the job was stopped by its time limit, so what it had written by then depends on the machine"
        return Finding(CrossValidationState.INCONCLUSIVE, stopped, found.differences, found.not_compared)
    first = found.differences[0]
    where = f"{first.what} {first.path!r}" if first.path else first.what
    more = f", and {len(found.differences) - 1} more" if len(found.differences) > 1 else ""
    return Finding(
        CrossValidationState.MISMATCH,
        f"the results differ: {where[:300]}{more}",
        found.differences,
        found.not_compared,
    )


def _comparison(answer: Answer, own: Ended, trusted: Ended) -> Comparison:
    if isinstance(answer, Comparison):
        return answer
    if answer is True:
        return Comparison()
    if answer is False:  # the evidence still names what it can
        seen = Walk(own.result, trusted.result, unequal_bytes).compare().differences
        return Comparison(seen or (Difference("result"),))
    return Comparison(tuple(answer))

"""How a job can end, and whether that is its miner's fault (sections 5.4, 6.7)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

from compute_horde.lifecycle import failures
from compute_horde.lifecycle.states import JobState, to_wire
from compute_horde.protocol.compat.cancelled import CANCELLED_CODE, says_cancelled
from compute_horde.protocol.details import (
    FailureDetails,
    HordeFailureDetails,
    RejectionDetails,
    StatusMetadata,
)
from compute_horde.protocol.enums import (
    FailureReason,
    Fault,
    HordeFailureReason,
    Participant,
    RejectionReason,
)
from compute_horde.protocol.problems import NOT_STORED, Problem, is_worth_another_attempt
from compute_horde.protocol.validator_miner import (
    V0DeclineJobRequest,
    V0HordeFailedRequest,
    V0JobFailedRequest,
    V0JobFinishedRequest,
)


@dataclass(frozen=True)
class Outcome:
    """A terminal state with its metadata. ``blame``: the incident's code where the miner is at fault."""

    state: JobState
    by: Participant
    metadata: StatusMetadata
    blame: str | None = None

    @property
    def problem(self) -> Problem | None:
        """The failure as data, where its finder said so."""
        details = self._details
        return Problem.from_context(details.context, details.message) if details else None

    @property
    def message(self) -> str:
        return self._details.message if self._details else ""

    @property
    def is_worth_another(self) -> bool:
        """Whether the job may end well with another attempt."""
        return is_worth_another_attempt(self.problem, to_wire(self.state))

    @property
    def _details(self) -> "RejectionDetails | FailureDetails | HordeFailureDetails | None":
        shown = self.metadata
        return shown.job_rejection_details or shown.job_failure_details or shown.horde_failure_details

    def with_details(self, **details: JsonValue) -> "Outcome":
        """The same end with more of what is known beside it, where it is a failure."""
        updated = {
            name: value.model_copy(update={"context": {**(value.context or {}), **details}})
            for name in ("job_rejection_details", "job_failure_details", "horde_failure_details")
            if (value := getattr(self.metadata, name)) is not None
        }
        return replace(self, metadata=self.metadata.model_copy(update=updated))

    def without_output(self) -> "Outcome":
        """The same end without what the job printed."""
        if (failure := self.metadata.job_failure_details) is None:
            return self
        nothing = {"docker_process_stdout": None, "docker_process_stderr": None}
        metadata = StatusMetadata(job_failure_details=failure.model_copy(update=nothing))
        return replace(self, metadata=metadata)

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_json` reads again."""
        metadata = self.metadata.model_dump(mode="json", exclude_none=True)
        return {"state": self.state.value, "by": self.by.value, "metadata": metadata, "blame": self.blame}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Outcome":
        metadata = StatusMetadata.model_validate(kept["metadata"])
        return cls(JobState(kept["state"]), Participant(kept["by"]), metadata, kept["blame"])


Ending = V0DeclineJobRequest | V0JobFailedRequest | V0HordeFailedRequest | V0JobFinishedRequest


def from_miner(message: Ending) -> Outcome:
    """What the miner's last message means for the job."""
    match message:
        case V0JobFinishedRequest():
            metadata = StatusMetadata(miner_response=message.to_miner_response())
            return Outcome(JobState.COMPLETED, Participant.MINER, metadata)
        case V0DeclineJobRequest():
            return _declined(message)
        case V0JobFailedRequest() if says_cancelled(message.context):
            return _cancelled_by_miner(message)
        case V0JobFailedRequest():
            details = FailureDetails.model_validate(message.model_dump(exclude={"message_type", "job_uuid"}))
            blame = _blame(message.context, message.message, None)
            return Outcome(JobState.FAILED, Participant.MINER, StatusMetadata(job_failure_details=details), blame)
        case V0HordeFailedRequest():
            horde = HordeFailureDetails.model_validate(message.model_dump(exclude={"message_type", "job_uuid"}))
            known = message.reason is not HordeFailureReason.UNKNOWN
            blame = _blame(message.context, message.message, message.reason.value if known else None)
            return Outcome(
                JobState.HORDE_FAILED, Participant.MINER, StatusMetadata(horde_failure_details=horde), blame
            )


def says_busy(message: V0DeclineJobRequest) -> bool:
    """Whether the miner would take the job later: once an executor is free, or it can store the job."""
    if message.reason is RejectionReason.BUSY:
        return True
    found = Problem.from_context(message.context, message.message)
    return found is not None and found.code == NOT_STORED


def _cancelled_by_miner(message: V0JobFailedRequest) -> Outcome:
    details = FailureDetails.model_validate(message.model_dump(exclude={"message_type", "job_uuid"}))
    return Outcome(JobState.CANCELLED, Participant.MINER, StatusMetadata(job_failure_details=details))


def cancelled(message: str = "The job was cancelled", details: Mapping[str, JsonValue] | None = None) -> Outcome:
    """The validator ends a job that its user cancelled."""
    found = failures.problem(CANCELLED_CODE, message).model_copy(update={"details": dict(details or {})})
    failure = FailureDetails(
        reason=FailureReason.UNKNOWN, stage=found.stage, message=message, context=found.to_context()
    )
    return Outcome(JobState.CANCELLED, Participant.VALIDATOR, StatusMetadata(job_failure_details=failure))


def as_wished(outcome: Outcome) -> Outcome:
    """The same end for a job whose user wants it to be cancelled.

    A result stays a result. Any other end is what the user asked for: it shows as cancelled, with what went wrong
    in the details and with the output. Nobody is blamed, since a miner that is told to stop may fail at it in many
    ways, and the user no longer cares.
    """
    if outcome.state in (JobState.COMPLETED, JobState.CANCELLED):
        return outcome
    meanwhile = outcome.metadata.model_dump(mode="json", exclude_none=True)
    failure = meanwhile.get("job_failure_details", {})
    output = {key: failure.pop(key) for key in list(failure) if key.startswith("docker_process_")}
    details: dict[str, JsonValue] = {"instead_of": outcome.state.value, **meanwhile}
    ended = cancelled(details=details)
    shown = ended.metadata.job_failure_details
    assert shown is not None  # noqa: S101 - that is what cancelled() makes
    metadata = StatusMetadata(job_failure_details=shown.model_copy(update=output))
    return Outcome(JobState.CANCELLED, outcome.by, metadata)


def unwished(outcome: Outcome) -> Outcome:
    """The same end for a job that nobody wants to be cancelled.

    A miner that says it was is at fault: it must not get rid of a job in this way.
    """
    if outcome.state is not JobState.CANCELLED:
        return outcome
    return horde_failed(
        failures.problem("protocol_error", "The miner ended the job as cancelled, which nobody had asked for")
    )


def _declined(message: V0DeclineJobRequest) -> Outcome:
    details = RejectionDetails(
        rejected_by=Participant.MINER, reason=message.reason, message=message.message, context=message.context
    )
    blame = _blame(message.context, message.message, None)
    return Outcome(JobState.REJECTED, Participant.MINER, StatusMetadata(job_rejection_details=details), blame)


def _blame(context: dict[str, JsonValue] | None, message: str, otherwise: str | None) -> str | None:
    found = Problem.from_context(context, message)
    if found is None:
        return otherwise  # an older peer says no more than its reason
    return found.code if found.fault is Fault.MINER else None


def horde_failed(found: Problem) -> Outcome:
    """A failure that the validator itself found (G23)."""
    reason = failures.KINDS[found.code].reason
    details = HordeFailureDetails(
        reported_by=Participant.VALIDATOR,
        reason=HordeFailureReason(reason.value),
        message=found.message,
        context=found.to_context(),
    )
    blame = found.code if found.fault is Fault.MINER else None
    return Outcome(
        JobState.HORDE_FAILED, Participant.VALIDATOR, StatusMetadata(horde_failure_details=details), blame
    )


def unhandled(error: Exception) -> Outcome:
    """The validator's own mishap: the user learns the exception's type, its text stays in the log."""
    found = failures.problem("validator_failed", "Unhandled exception", exception_type=type(error).__name__)
    details = HordeFailureDetails(
        reported_by=Participant.VALIDATOR,
        reason=HordeFailureReason.UNHANDLED_EXCEPTION,
        message=found.message,
        context={"exception_type": type(error).__name__, **found.to_context()},
    )
    return Outcome(JobState.HORDE_FAILED, Participant.VALIDATOR, StatusMetadata(horde_failure_details=details))


def invalid_signature(message: str) -> Outcome:
    """The job's signature does not let it in."""
    found = Problem(
        code="invalid_signature",
        message=message,
        fault=Fault.USER,
        hint="Sign with a hotkey that this validator accepts, and check the clock.",
    )
    return _rejected(RejectionReason.INVALID_SIGNATURE, found)


def no_miner(message: str, hint: str, **details: JsonValue) -> Outcome:
    """There is nobody to give the job to."""
    found = Problem(
        code="no_miner_for_job",
        message=message,
        fault=Fault.NOBODY,
        retryable=True,
        hint=hint,
        details=details,
    )
    return _rejected(RejectionReason.NO_MINER_FOR_JOB, found)


def queue_timeout(waited_s: float, why: str) -> Outcome:
    """No executor was free for as long as the job may wait."""
    found = Problem(
        code="queue_timeout",
        message=f"No executor was free within {waited_s:.0f} s",
        fault=Fault.NOBODY,
        retryable=True,
        hint="Send the job again, let it wait longer (queue_time_limit), or choose another executor class.",
        details={"waited_s": round(waited_s, 1), "why": why},
    )
    return _rejected(RejectionReason.BUSY, found)


def all_busy(executor_class: str) -> Outcome:
    """No executor is free, and the job does not want to wait."""
    found = Problem(
        code="busy",
        message=f"No executor of class {executor_class} is free",
        fault=Fault.NOBODY,
        retryable=True,
        hint="Send the job again later, or let it wait (queue_time_limit).",
        details={"executor_class": executor_class},
    )
    return _rejected(RejectionReason.BUSY, found)


def _rejected(reason: RejectionReason, found: Problem) -> Outcome:
    details = RejectionDetails(
        rejected_by=Participant.VALIDATOR, reason=reason, message=found.message, context=found.to_context()
    )
    return Outcome(JobState.REJECTED, Participant.VALIDATOR, StatusMetadata(job_rejection_details=details))

"""``job.error``: the failure that our horde describes, or the best account of what an older one tells."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pydantic import JsonValue

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
    Stage,
)
from compute_horde.protocol.problems import Problem
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeHordeFailure,
    ComputeHordeJobError,
    ComputeHordeJobFailure,
    ComputeHordeJobRejection,
)
from compute_horde_sdk._internal.models import ComputeHordeJobStatus, ComputeHordeJobStatusEntry

AGAIN = "Send the job again."


class _Default(NamedTuple):
    code: str
    hint: str
    fault: Fault = Fault.USER
    retryable: bool = False


_REASONS: Mapping[FailureReason, _Default] = MappingProxyType(
    {
        FailureReason.NONZERO_RETURN_CODE: _Default("nonzero_exit", "Look at the result's stderr and exit code."),
        FailureReason.DOWNLOAD_FAILED: _Default("download_failed", "Check the image and the input volumes."),
        FailureReason.UPLOAD_FAILED: _Default(
            "upload_failed", "Check the upload URLs, and that the job writes the files."
        ),
        FailureReason.UNKNOWN: _Default("job_failed", "Look at the message and the result's stderr."),
    }
)

_TIMEOUTS: Mapping[Stage, _Default] = MappingProxyType(
    {
        Stage.VOLUME_DOWNLOAD: _Default("download_timeout", "Raise download_time_limit_sec.", retryable=True),
        Stage.STREAMING_STARTUP: _Default("streaming_timeout", "Raise streaming_start_time_limit_sec."),
        Stage.EXECUTION: _Default("execution_timeout", "Raise execution_time_limit_sec."),
        Stage.RESULT_UPLOAD: _Default("upload_timeout", "Raise upload_time_limit_sec.", retryable=True),
    }
)

_REJECTIONS: Mapping[RejectionReason, _Default] = MappingProxyType(
    {
        RejectionReason.BUSY: _Default(
            "busy", "Wait until an executor is free, then send it again.", Fault.NOBODY, True
        ),
        RejectionReason.NO_MINER_FOR_JOB: _Default(
            "no_miner_for_job", "No miner offers this class now; wait, or use another class.", Fault.NOBODY, True
        ),
        RejectionReason.INVALID_SIGNATURE: _Default(
            "invalid_signature", "Check that the validator allows this hotkey, then sign and send it anew."
        ),
        RejectionReason.VALIDATOR_BLACKLISTED: _Default("validator_blacklisted", AGAIN, Fault.VALIDATOR, True),
        RejectionReason.INVALID_RECEIPT: _Default("invalid_receipt", AGAIN, Fault.VALIDATOR, True),
        RejectionReason.UNKNOWN: _Default("rejected", AGAIN, Fault.NOBODY, True),
    }
)

_FAULTS: Mapping[Participant, Fault] = MappingProxyType(
    {
        Participant.SDK: Fault.USER,
        Participant.FACILITATOR: Fault.FACILITATOR,
        Participant.VALIDATOR: Fault.VALIDATOR,
        Participant.MINER: Fault.MINER,
        Participant.EXECUTOR: Fault.MINER,
        Participant.UNKNOWN: Fault.NOBODY,
    }
)

_HORDE_STAGES: Mapping[HordeFailureReason, Stage] = MappingProxyType(
    {
        HordeFailureReason.MINER_CONNECTION_FAILED: Stage.EXECUTOR_STARTUP,
        HordeFailureReason.INITIAL_RESPONSE_TIMED_OUT: Stage.EXECUTOR_STARTUP,
        HordeFailureReason.EXECUTOR_READINESS_RESPONSE_TIMED_OUT: Stage.EXECUTOR_STARTUP,
        HordeFailureReason.EXECUTOR_SPINUP_FAILED: Stage.EXECUTOR_STARTUP,
        HordeFailureReason.SECURITY_CHECK_FAILED: Stage.EXECUTOR_STARTUP,
        HordeFailureReason.VOLUMES_TIMED_OUT: Stage.VOLUME_DOWNLOAD,
        HordeFailureReason.STREAMING_FAILED: Stage.STREAMING_STARTUP,
        HordeFailureReason.STREAMING_JOB_READY_TIMED_OUT: Stage.STREAMING_STARTUP,
        HordeFailureReason.EXECUTION_TIMED_OUT: Stage.EXECUTION,
        HordeFailureReason.FINAL_RESPONSE_TIMED_OUT: Stage.RESULT_UPLOAD,
    }
)


_KINDS: Mapping[ComputeHordeJobStatus, type[ComputeHordeJobError]] = MappingProxyType(
    {
        ComputeHordeJobStatus.REJECTED: ComputeHordeJobRejection,
        ComputeHordeJobStatus.HORDE_FAILED: ComputeHordeHordeFailure,
    }
)


def error_of_entry(entry: ComputeHordeJobStatusEntry) -> ComputeHordeJobError | None:
    """Why the job ended with this entry, or the attempt before it did; None when neither failed."""
    told = error_of(entry.metadata or StatusMetadata())
    if entry.status is ComputeHordeJobStatus.QUEUED:
        return told
    return (told or bare_error(entry.status)) if entry.status.is_failed() else None


def error_of(metadata: StatusMetadata) -> ComputeHordeJobError | None:
    """The failure that came with a status; None where none did."""
    if details := metadata.horde_failure_details:
        return _of_horde(details)
    if failure := metadata.job_failure_details:
        return _of_job(failure)
    if rejection := metadata.job_rejection_details:
        return _of_rejection(rejection)
    return None


def bare_error(status: ComputeHordeJobStatus) -> ComputeHordeJobError:
    """For a failure of which nothing but the status is known."""
    return _KINDS.get(status, ComputeHordeJobFailure)(
        f"the job ended as {status.value}, and the horde gave no reason",
        code=status.value if status is not ComputeHordeJobStatus.FAILED else "job_failed",
        stage=Stage.UNKNOWN,
        fault=Fault.NOBODY,
        retryable=status is not ComputeHordeJobStatus.FAILED,
    )


def _of_job(details: FailureDetails) -> ComputeHordeJobError:
    default = _REASONS.get(details.reason) or _TIMEOUTS.get(
        details.stage, _Default("timeout", "Raise the job's time limits.")
    )
    return _build(
        ComputeHordeJobFailure,
        default,
        details.stage,
        details.message,
        details.context,
        reason=details.reason.value,
        exit_code=details.docker_process_exit_status,
    )


def _of_horde(details: HordeFailureDetails) -> ComputeHordeJobError:
    code = "horde_failed" if details.reason is HordeFailureReason.UNKNOWN else details.reason.value
    return _build(
        ComputeHordeHordeFailure,
        _Default(code, AGAIN, _FAULTS[details.reported_by], True),
        _HORDE_STAGES.get(details.reason, Stage.UNKNOWN),
        details.message,
        details.context,
        reason=details.reason.value,
        reported_by=details.reported_by.value,
    )


def _of_rejection(details: RejectionDetails) -> ComputeHordeJobError:
    return _build(
        ComputeHordeJobRejection,
        _REJECTIONS[details.reason],
        Stage.UNKNOWN,
        details.message,
        details.context,
        reason=details.reason.value,
        reported_by=details.rejected_by.value,
    )


def _build(
    kind: type[ComputeHordeJobError],
    default: _Default,
    stage: Stage,
    message: str,
    context: Mapping[str, JsonValue] | None,
    *,
    reason: str,
    reported_by: str | None = None,
    exit_code: int | None = None,
) -> ComputeHordeJobError:
    problem = Problem.from_context(context, message) or Problem(
        code=default.code,
        message=message,
        stage=stage,
        fault=default.fault,
        retryable=default.retryable,
        hint=default.hint,
    )
    return kind(
        message or f"the job failed: {reason}",
        code=problem.code,
        hint=problem.hint,
        retryable=problem.retryable,
        stage=problem.stage,
        fault=problem.fault,
        reason=reason,
        reported_by=reported_by,
        context=context,
        exit_code=exit_code,
    )

"""Failure classification: one table from a failure's code to its fault, stage and remedy."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pydantic import JsonValue

from compute_horde.protocol.enums import FailureReason, Fault, HordeFailureReason, Participant, Stage
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.validator_miner import V0HordeFailedRequest, V0JobFailedRequest


class Kind(NamedTuple):
    """``reason`` decides the wire message: a job's own failure, or the horde's."""

    fault: Fault
    stage: Stage
    reason: FailureReason | HordeFailureReason
    retryable: bool
    hint: str


_USER, _MINER, _VALIDATOR, _NOBODY = Fault.USER, Fault.MINER, Fault.VALIDATOR, Fault.NOBODY
_START, _DOWN, _EXEC, _UP = (
    Stage.EXECUTOR_STARTUP,
    Stage.VOLUME_DOWNLOAD,
    Stage.EXECUTION,
    Stage.RESULT_UPLOAD,
)
_GENERIC = HordeFailureReason.GENERIC_ERROR
_DL, _UPL = FailureReason.DOWNLOAD_FAILED, FailureReason.UPLOAD_FAILED

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        # before the job runs
        "image_not_found": Kind(
            _USER, _START, _DL, False, "Check the image's name and tag, and that it is public."
        ),
        "image_pull_failed": Kind(
            _NOBODY, _START, _GENERIC, True, "The registry did not answer; send the job again."
        ),
        "image_pull_timeout": Kind(
            _NOBODY, _START, _GENERIC, True, "The image took too long to pull; use a smaller one or try again."
        ),
        "sandbox_unsafe": Kind(
            _MINER, _START, HordeFailureReason.SECURITY_CHECK_FAILED, True, "Another miner can run this job."
        ),
        "engine_unavailable": Kind(_MINER, _START, _GENERIC, True, "The executor's container engine is down."),
        "gpu_unavailable": Kind(_MINER, _START, _GENERIC, True, "The executor offers a GPU class without a GPU."),
        "executor_spinup_failed": Kind(
            _MINER, _START, HordeFailureReason.EXECUTOR_SPINUP_FAILED, True, "Send the job again."
        ),
        "executor_disconnected": Kind(
            _MINER, _EXEC, HordeFailureReason.EXECUTOR_DISCONNECTED, True, "Send the job again."
        ),
        # any time
        "cancelled": Kind(_USER, Stage.UNKNOWN, FailureReason.UNKNOWN, False, "Create it again if it is wanted."),
        # inputs
        "volume_invalid": Kind(_USER, _DOWN, _DL, False, "Check the volume's contents and path."),
        "volume_not_base64": Kind(_USER, _DOWN, _DL, False, "Inline contents must be base64 of a zip."),
        "volume_not_zip": Kind(_USER, _DOWN, _DL, False, "The contents must be a zip archive."),
        "volume_zip_unsafe": Kind(_USER, _DOWN, _DL, False, "Make the zip without links, '..' or absolute paths."),
        "volume_too_large": Kind(_USER, _DOWN, _DL, False, "Split the input, or use a smaller one."),
        "download_refused": Kind(_USER, _DOWN, _DL, False, "Use a URL on the public internet."),
        "download_http_error": Kind(_USER, _DOWN, _DL, False, "Check the URL and its permissions."),
        "download_checksum": Kind(
            _USER, _DOWN, _DL, False, "The file is not the one whose sha256 the job names; correct one of them."
        ),
        "download_unreachable": Kind(_USER, _DOWN, _DL, True, "Check that the server answers from the internet."),
        "download_timeout": Kind(
            _USER, _DOWN, FailureReason.TIMEOUT, True, "Raise download_time_limit_sec, or use a faster source."
        ),
        "volume_unsupported": Kind(_USER, _DOWN, _DL, False, "Use another kind of volume."),
        # the run
        "nonzero_exit": Kind(
            _USER, _EXEC, FailureReason.NONZERO_RETURN_CODE, False, "Look at the job's stderr and exit code."
        ),
        "out_of_memory": Kind(
            _USER, _EXEC, FailureReason.NONZERO_RETURN_CODE, False, "The job used more memory than its class has."
        ),
        "disk_full": Kind(_USER, _EXEC, FailureReason.UNKNOWN, False, "The job wrote more than the disk limit."),
        "container_start_failed": Kind(
            _USER, _EXEC, FailureReason.UNKNOWN, False, "Check the command: the image must contain it."
        ),
        "execution_timeout": Kind(
            _USER, _EXEC, FailureReason.TIMEOUT, False, "Raise execution_time_limit_sec, or make the job faster."
        ),
        "streaming_unsupported": Kind(
            _MINER, _EXEC, HordeFailureReason.STREAMING_FAILED, False, "This executor runs no streaming jobs."
        ),
        # outputs
        "output_missing": Kind(_USER, _UP, _UPL, False, "Let the job write the file under /output."),
        "output_invalid": Kind(
            _USER, _UP, _UPL, False, "Only regular files can be uploaded, no links or devices."
        ),
        "output_too_large": Kind(_USER, _UP, _UPL, False, "Write less, or upload the parts one by one."),
        "upload_refused": Kind(_USER, _UP, _UPL, False, "Use a URL on the public internet."),
        "upload_http_error": Kind(_USER, _UP, _UPL, False, "Check the upload URL, its signature and its expiry."),
        "upload_unreachable": Kind(_USER, _UP, _UPL, True, "Check that the upload server answers."),
        "upload_timeout": Kind(
            _USER, _UP, FailureReason.TIMEOUT, True, "Raise upload_time_limit_sec, or use a faster target."
        ),
        # the horde itself
        "internal_error": Kind(
            _MINER, Stage.UNKNOWN, HordeFailureReason.UNHANDLED_EXCEPTION, True, "Send the job again."
        ),
        "protocol_error": Kind(_MINER, Stage.UNKNOWN, _GENERIC, True, "Send the job again."),
        "miner_unreachable": Kind(
            _MINER, _START, HordeFailureReason.MINER_CONNECTION_FAILED, True, "Send the job again, or wait."
        ),
        "miner_silent": Kind(
            _MINER, _START, HordeFailureReason.INITIAL_RESPONSE_TIMED_OUT, True, "Send the job again."
        ),
        "executor_late": Kind(
            _MINER, _START, HordeFailureReason.EXECUTOR_READINESS_RESPONSE_TIMED_OUT, True, "Send the job again."
        ),
        "volumes_late": Kind(_MINER, _DOWN, HordeFailureReason.VOLUMES_TIMED_OUT, True, "Send the job again."),
        "streaming_late": Kind(
            _MINER,
            Stage.STREAMING_STARTUP,
            HordeFailureReason.STREAMING_JOB_READY_TIMED_OUT,
            True,
            "Send the job again.",
        ),
        "execution_late": Kind(_MINER, _EXEC, HordeFailureReason.EXECUTION_TIMED_OUT, True, "Send the job again."),
        "result_late": Kind(_MINER, _UP, HordeFailureReason.FINAL_RESPONSE_TIMED_OUT, True, "Send the job again."),
        "validator_failed": Kind(
            _VALIDATOR, Stage.UNKNOWN, HordeFailureReason.UNHANDLED_EXCEPTION, True, "Send the job again."
        ),
        "validator_silent": Kind(
            _VALIDATOR, Stage.UNKNOWN, HordeFailureReason.UNHANDLED_TIMEOUT, True, "Send the job again."
        ),
    }
)


def problem(code: str, message: str, stage: Stage | None = None, **details: JsonValue) -> Problem:
    """A failure of a known kind. ``stage`` overrides the table's where the same thing can happen in several."""
    kind = KINDS[code]
    return Problem(
        code=code,
        message=message,
        stage=stage or kind.stage,
        fault=kind.fault,
        retryable=kind.retryable,
        hint=kind.hint,
        details=details,
    )


def is_jobs_own(found: Problem) -> bool:
    """Whether the job failed (``failed`` on the wire) rather than the horde (``horde_failed``)."""
    return isinstance(KINDS[found.code].reason, FailureReason)


def to_wire(
    found: Problem,
    job_uuid: str,
    *,
    reported_by: Participant,
    stdout: str | None = None,
    stderr: str | None = None,
    exit_status: int | None = None,
) -> V0JobFailedRequest | V0HordeFailedRequest:
    """The message that tells a miner or validator of this failure; output and exit status go with a job's own."""
    reason = KINDS[found.code].reason
    if isinstance(reason, HordeFailureReason):
        return V0HordeFailedRequest(
            job_uuid=job_uuid,
            reported_by=reported_by,
            message=found.message,
            reason=reason,
            context=found.to_context(),
        )
    return V0JobFailedRequest(
        job_uuid=job_uuid,
        message=found.message,
        reason=reason,
        stage=found.stage,
        docker_process_exit_status=exit_status,
        docker_process_stdout=stdout,
        docker_process_stderr=stderr,
        context=found.to_context(),
    )

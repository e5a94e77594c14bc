"""A job's outcome at the terminal: exit code, output, files."""

import sys
from collections.abc import Iterable
from pathlib import Path

from compute_horde.cli.progress import attempt_line
from compute_horde.cli.terminal import err, fail, note, printable, write_output
from compute_horde_sdk.v1 import (
    ComputeHordeAuthenticationError,
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeJob,
    ComputeHordeJobStatus,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeUnsupportedError,
)

USAGE = 2
FAILED_BY_INPUT = 65  # the job's input or output was at fault
NO_SUCH_JOB = 66
UNAVAILABLE = 69  # the horde failed the job, cannot be reached, or cannot do that
REJECTED = 75  # busy, or no miner for it
MISMATCH = 76  # the trusted miner contradicts the result
NOT_ALLOWED = 77
CANCELLED = 79
TIMED_OUT = 124  # the execution limit, or the time to wait, ran out
# what is not listed here is the job's own; Ctrl-C makes 130, SIGTERM 143 (docs/cli.md)

_BY_ERROR_CODE = {
    "authentication_failed": NOT_ALLOWED,
    "signing_failed": NOT_ALLOWED,
    "validator_not_connected": UNAVAILABLE,
    "connection_failed": UNAVAILABLE,
    "request_timeout": UNAVAILABLE,
    "unsupported": UNAVAILABLE,
    "wait_timeout": TIMED_OUT,
    "not_found": NO_SUCH_JOB,
    "validation_failed": USAGE,
    "invalid_input": USAGE,
}


def exit_code(outcome: ComputeHordeJob | ComputeHordeError) -> int:
    """The shell's view of an outcome."""
    if isinstance(outcome, ComputeHordeError):
        if isinstance(outcome, ValueError):
            return USAGE
        return _BY_ERROR_CODE.get(outcome.code) or _by_kind(outcome)
    if outcome.result is not None and outcome.result.timed_out:
        return TIMED_OUT
    match outcome.status:
        case ComputeHordeJobStatus.COMPLETED:
            return 0
        case ComputeHordeJobStatus.REJECTED:
            return REJECTED
        case ComputeHordeJobStatus.CANCELLED:
            return CANCELLED
        case ComputeHordeJobStatus.FAILED:
            return _failed(outcome)
        case _:
            return UNAVAILABLE


def _by_kind(error: ComputeHordeError) -> int:
    """For the codes that facilitators choose themselves."""
    match error:
        case ComputeHordeAuthenticationError():
            return NOT_ALLOWED
        case ComputeHordeNotFoundError():
            return NO_SUCH_JOB
        case ComputeHordeConnectionError() | ComputeHordeUnsupportedError():
            return UNAVAILABLE
        case ComputeHordeResponseError(retryable=True):
            return UNAVAILABLE
    return 1


def first_failure(codes: Iterable[int]) -> int:
    """The exit code for several jobs: the first that is not 0."""
    return next((code for code in codes if code), 0)


def _failed(job: ComputeHordeJob) -> int:
    if job.error is not None and job.error.reason == "timeout":
        return TIMED_OUT
    own = job.result.exit_code if job.result is not None else None
    return own % 256 or 1 if own else FAILED_BY_INPUT


def show_result(job: ComputeHordeJob) -> None:
    """stdout to stdout, stderr to stderr, then what went wrong or came back."""
    if job.result is not None:
        write_output(sys.stdout, job.result.stdout)
        write_output(sys.stderr, job.result.stderr)
    show_end(job)


def show_end(job: ComputeHordeJob) -> None:
    """What there is to say besides the output: notices, artifacts, attempts that failed, the error."""
    if job.result is not None:
        for notice in job.result.notices:
            note(f"notice: {printable(notice)}")
        for path, data in job.result.artifacts.items():
            note(f"artifact: {printable(path)} ({len(data)} bytes)")
    for one in job.attempts_made[:-1]:
        note(f"attempt {attempt_line(one)}")
    show_error(job)


def show_error(job: ComputeHordeJob) -> None:
    """Why the job failed and what to do; nothing when it did not."""
    error = job.error
    if error is None:
        return
    what = f"{job.status.value} ({error.code}, stage {error.stage}, fault {error.fault})"
    err.print(printable(f"{what}: {error.message}"), markup=False, highlight=False, style="red", soft_wrap=True)
    if error.hint:
        note(f"hint: {printable(error.hint)}")


def save_artifacts(job: ComputeHordeJob, folder: Path) -> None:
    """Write each artifact under its base name. Never outside ``folder``, whatever a miner called it."""
    if job.result is None:
        return
    try:
        job.result.save_artifacts(folder, overwrite=True)
    except ComputeHordeError as error:
        fail(f"cannot save the artifacts in {folder}: {error.message}", error.hint)
    except OSError as error:
        fail(f"cannot save the artifacts in {folder}: {error.strerror}")

"""A job's outcome at the terminal: exit code, JSON, files."""

import base64
import os
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from compute_horde.cli.terminal import err, fail
from compute_horde_sdk.v1 import ComputeHordeError, ComputeHordeJob, ComputeHordeJobStatus

FAILED_BY_INPUT, UNAVAILABLE, REJECTED, NOT_ALLOWED, TIMED_OUT = 65, 69, 75, 77, 124
_BY_ERROR_CODE = {
    "authentication_failed": NOT_ALLOWED,
    "validator_not_connected": UNAVAILABLE,
    "connection_failed": UNAVAILABLE,
    "validation_failed": 2,
    "invalid_input": 2,
}


def exit_code(outcome: ComputeHordeJob | ComputeHordeError) -> int:
    """The shell's view of an outcome; ``horde run --help`` lists the codes."""
    if isinstance(outcome, ComputeHordeError):
        if isinstance(outcome, ValueError):
            return 2
        return _BY_ERROR_CODE.get(outcome.code, 1)
    result = outcome.result
    if result is not None and result.timed_out:
        return TIMED_OUT
    match outcome.status:
        case ComputeHordeJobStatus.COMPLETED:
            return 0
        case ComputeHordeJobStatus.REJECTED:
            return REJECTED
        case ComputeHordeJobStatus.FAILED:
            return _failed(outcome)
        case _:
            return UNAVAILABLE


def _failed(job: ComputeHordeJob) -> int:
    if job.error is not None and job.error.reason == "timeout":
        return TIMED_OUT
    own = job.result.exit_code if job.result is not None else None
    return own % 256 if own else FAILED_BY_INPUT


def to_json(job: ComputeHordeJob) -> dict[str, Any]:
    """Everything that is known of a finished job; artifact contents are base64."""
    result, error = job.result, job.error
    return {
        "uuid": job.uuid,
        "status": job.status.value,
        "exit_code": result.exit_code if result else None,
        "timed_out": result.timed_out if result else False,
        "stdout": result.stdout if result else "",
        "stderr": result.stderr if result else "",
        "artifacts": {p: base64.b64encode(data).decode() for p, data in result.artifacts.items()}
        if result
        else {},
        "upload_results": {
            path: {"headers": dict(answer.headers), "body": answer.body}
            for path, answer in (result.upload_results.items() if result else ())
        },
        "notices": list(result.notices) if result else [],
        "error": {
            "code": error.code,
            "message": error.message,
            "stage": error.stage,
            "fault": error.fault,
            "retryable": error.retryable,
            "hint": error.hint,
        }
        if error
        else None,
    }


def show_result(job: ComputeHordeJob) -> None:
    """stdout to stdout, stderr to stderr, then one line of what went wrong or came back."""
    result, error = job.result, job.error
    if result is not None:
        sys.stdout.write(result.stdout)
        sys.stdout.flush()
        sys.stderr.write(result.stderr)
        for notice in result.notices:
            err.print(f"notice: {printable(notice)}", markup=False, highlight=False)
        for path, data in result.artifacts.items():
            err.print(f"artifact: {printable(path)} ({len(data)} bytes)", markup=False, highlight=False)
    if error is not None:
        what = f"{job.status.value} ({error.code}, stage {error.stage}, fault {error.fault})"
        err.print(
            f"{what}: {printable(error.message)}", markup=False, highlight=False, style="red", soft_wrap=True
        )
        if error.hint:
            err.print(f"hint: {printable(error.hint)}", markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Text of a remote party, so that it cannot forge lines of ours or drive the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def save_artifacts(job: ComputeHordeJob, folder: Path) -> None:
    """Write each artifact under its base name. Never outside ``folder``, whatever a miner called it."""
    artifacts = job.result.artifacts if job.result else {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in artifacts.items():
            name = PurePosixPath(path).name
            if name in ("", ".", ".."):
                continue
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with os.fdopen(os.open(folder / name, flags, 0o644), "wb") as file:
                file.write(data)
    except OSError as error:
        fail(f"cannot save the artifacts in {folder}: {error.strerror}")

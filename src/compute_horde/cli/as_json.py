"""Jobs as JSON. The keys are a promise (docs/cli.md): one may be added, none renamed or taken away."""

import base64
import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from compute_horde_sdk.v1 import (
    ComputeHordeError,
    ComputeHordeJob,
    ComputeHordeJobResult,
    JobAttempt,
    QueuePlace,
)


def one_line(what: Mapping[str, Any]) -> str:
    """One object on one line."""
    return json.dumps(what)


def summary(job: ComputeHordeJob) -> dict[str, Any]:
    """What a list shows of a job."""
    return {
        "uuid": job.uuid,
        "status": job.status.value,
        "created_at": job.created_at.isoformat(),
        "executor_class": job.executor_class,
        "docker_image": job.docker_image,
        "job_namespace": job.job_namespace,
        "job_queue": job.job_queue,
        "on_trusted_miner": job.on_trusted_miner,
        "queue": place(job.queue),
        "attempt": job.attempt,
        "attempts": job.attempts,
    }


def place(where: QueuePlace | None) -> dict[str, Any] | None:
    """Where a job stands while it waits; None when it does not."""
    if where is None:
        return None
    return {"position": where.position, "length": where.length, "starts_in_s": where.starts_in}


def whole(job: ComputeHordeJob) -> dict[str, Any]:
    """Everything that is known of a job; artifact contents are base64."""
    return {
        **summary(job),
        **_result(job.result or ComputeHordeJobResult()),
        "error": _error(job.error),
        "attempts_made": [_attempt(one) for one in job.attempts_made],
        "status_history": history(job),
        "streaming": _streaming(job),
        "cross_validation": cross_validation(job),
    }


def history(job: ComputeHordeJob) -> list[dict[str, Any]]:
    """Each status with its time, and the seconds until the next one (None for the last)."""
    entries = job.status_history
    lasted = [(after.created_at - before.created_at).total_seconds() for before, after in pairwise(entries)]
    return [
        {
            "status": entry.status.value,
            "created_at": entry.created_at.isoformat(),
            "seconds": seconds,
            "attempt": entry.attempt,
            "miner_hotkey": entry.miner_hotkey,
        }
        for entry, seconds in zip(entries, [*lasted, None], strict=False)
    ]


def cross_validation(job: ComputeHordeJob) -> dict[str, Any] | None:
    """The verdict and its evidence; None for a job that is not cross-validated."""
    report = job.cross_validation
    if report is None:
        return None
    return {
        "state": report.state.value,
        "trusted_job_uuid": report.trusted_job_uuid,
        "reason": report.reason,
        "evidence": report.evidence.to_json() if report.evidence else None,
        "reported": report.reported,
        "report_error": _error(report.report_error),
    }


def _result(result: ComputeHordeJobResult) -> dict[str, Any]:
    return {
        "exit_code": result.exit_code,
        "timed_out": result.timed_out,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "artifacts": {path: base64.b64encode(data).decode() for path, data in result.artifacts.items()},
        "upload_results": {
            path: {"headers": dict(answer.headers), "body": answer.body}
            for path, answer in result.upload_results.items()
        },
        "notices": list(result.notices),
        "image_digest": result.image_digest,
        "output_hashes": None if result.output_hashes is None else dict(result.output_hashes),
    }


def _error(error: ComputeHordeError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "code": error.code,
        "message": error.message,
        "stage": error.stage,
        "fault": error.fault,
        "retryable": error.retryable,
        "hint": error.hint,
    }


def _attempt(one: JobAttempt) -> dict[str, Any]:
    return {
        "number": one.number,
        "miner_hotkey": one.miner_hotkey,
        "outcome": one.outcome.value if one.outcome else None,
        "error": _error(one.error),
    }


def _streaming(job: ComputeHordeJob) -> dict[str, Any] | None:
    if not job.streaming_server_address:
        return None
    return {"address": job.streaming_server_address, "port": job.streaming_server_port}

"""A stored job as the client sees it (sections 2.6 and 2.7). Pure."""

from compute_horde.facilitator.store import Row, StoredJob
from compute_horde.facilitator.tables import moment
from compute_horde.protocol.compat.cancelled import disguised
from compute_horde.protocol.compat.labels import LABELS
from compute_horde.protocol.details import StatusMetadata, StreamingServerDetails
from compute_horde.protocol.enums import JobStatus
from compute_horde.protocol.sdk_facilitator import Job, JobEvent, JobRequest, StatusEntry

_KEPT_ELSEWHERE = {"streaming_details", "run_cross_validation", "cross_validates"}


def job_view(stored: StoredJob, *, knows_cancelled: bool) -> Job:
    """The job object of create, retrieve and list. ``knows_cancelled``: its reader announced ``cancel``."""
    request = JobRequest.model_validate_json(stored.row["request"])
    history = [status_entry(row, knows_cancelled=knows_cancelled) for row in stored.history]
    latest = history[-1]
    response = latest.metadata.miner_response
    stdout, stderr = _output(latest)
    ended_well = latest.status is JobStatus.COMPLETED and response is not None
    server = _streaming_server(history)
    return Job(
        **request.model_dump(mode="json", exclude=_KEPT_ELSEWHERE),
        uuid=stored.row["uuid"],
        created_at=moment(stored.row["created_us"]),
        last_update=latest.created_at,
        status=LABELS[latest.status],
        stdout=stdout,
        stderr=stderr,
        artifacts=(response.artifacts or {}) if response and ended_well else {},
        upload_results=(response.upload_results or {}) if response and ended_well else {},
        streaming_client_cert=request.streaming_details.public_key if request.streaming_details else "",
        streaming_server_cert=server.streaming_server_cert or "",
        streaming_server_address=server.streaming_server_address or "",
        streaming_server_port=server.streaming_server_port or 0,
        status_history=history,
        run_cross_validation=stored.row["run_cross_validation"],
        trusted_job_uuid=stored.repetition,
        cross_validates=stored.row["cross_validates"],
        cancel_requested=stored.row["cancel_requested"],
    )


def status_entry(row: Row, *, knows_cancelled: bool) -> StatusEntry:
    status = JobStatus(row["status"])
    return StatusEntry(
        status=status if knows_cancelled else disguised(status),
        metadata=StatusMetadata.model_validate_json(row["metadata"]),
        created_at=moment(row["created_us"]),
    )


def job_event(row: Row, *, knows_cancelled: bool) -> JobEvent:
    return JobEvent(job_uuid=row["job_uuid"], entry=status_entry(row, knows_cancelled=knows_cancelled))


def _output(latest: StatusEntry) -> tuple[str, str]:
    """stdout and stderr: of the result, or what a cancelled job had printed; else empty (section 2.6)."""
    response, failure = latest.metadata.miner_response, latest.metadata.job_failure_details
    if response:
        return response.docker_process_stdout, response.docker_process_stderr
    if failure and latest.status is JobStatus.CANCELLED:
        return failure.docker_process_stdout or "", failure.docker_process_stderr or ""
    return "", ""


def _streaming_server(history: list[StatusEntry]) -> StreamingServerDetails:
    told = (entry.metadata.streaming_details for entry in history)
    return next((details for details in told if details), StreamingServerDetails())

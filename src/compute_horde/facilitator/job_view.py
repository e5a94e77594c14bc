"""A stored job as the client sees it (sections 2.6 and 2.7). Pure."""

from compute_horde.facilitator.store import Row, StoredJob
from compute_horde.facilitator.tables import moment
from compute_horde.protocol.compat.labels import LABELS
from compute_horde.protocol.details import StatusMetadata, StreamingServerDetails
from compute_horde.protocol.enums import JobStatus
from compute_horde.protocol.sdk_facilitator import Job, JobEvent, JobRequest, StatusEntry


def job_view(stored: StoredJob) -> Job:
    """The job object of create, retrieve and list."""
    request = JobRequest.model_validate_json(stored.row["request"])
    history = [status_entry(row) for row in stored.history]
    latest = history[-1]
    response = latest.metadata.miner_response
    ended_well = latest.status is JobStatus.COMPLETED and response is not None
    server = _streaming_server(history)
    return Job(
        **request.model_dump(mode="json", exclude={"streaming_details"}),
        uuid=stored.row["uuid"],
        created_at=moment(stored.row["created_us"]),
        last_update=latest.created_at,
        status=LABELS[latest.status],
        stdout=response.docker_process_stdout if response else "",
        stderr=response.docker_process_stderr if response else "",
        artifacts=(response.artifacts or {}) if response and ended_well else {},
        upload_results=(response.upload_results or {}) if response and ended_well else {},
        streaming_client_cert=request.streaming_details.public_key if request.streaming_details else "",
        streaming_server_cert=server.streaming_server_cert or "",
        streaming_server_address=server.streaming_server_address or "",
        streaming_server_port=server.streaming_server_port or 0,
        status_history=history,
    )


def status_entry(row: Row) -> StatusEntry:
    return StatusEntry(
        status=JobStatus(row["status"]),
        metadata=StatusMetadata.model_validate_json(row["metadata"]),
        created_at=moment(row["created_us"]),
    )


def job_event(row: Row) -> JobEvent:
    return JobEvent(job_uuid=row["job_uuid"], entry=status_entry(row))


def _streaming_server(history: list[StatusEntry]) -> StreamingServerDetails:
    told = (entry.metadata.streaming_details for entry in history)
    return next((details for details in told if details), StreamingServerDetails())

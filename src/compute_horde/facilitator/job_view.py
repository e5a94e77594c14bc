"""A stored job as the client sees it (sections 2.6 and 2.7). Pure."""

from dataclasses import dataclass

from compute_horde.facilitator.places import queue_place
from compute_horde.facilitator.rows import Row, StoredJob
from compute_horde.facilitator.tables import moment
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.compat.cancelled import disguised
from compute_horde.protocol.compat.labels import LABELS
from compute_horde.protocol.compat.queued import shown_unqueued
from compute_horde.protocol.details import StatusMetadata, StreamingServerDetails
from compute_horde.protocol.enums import JobStatus
from compute_horde.protocol.scheduling import QueuePlace
from compute_horde.protocol.sdk_facilitator import Job, JobEvent, JobRequest, StatusEntry

_KEPT_ELSEWHERE = {"streaming_details", "run_cross_validation", "cross_validates"}


@dataclass(frozen=True)
class Viewer:
    """What a client announced that it knows: the status ``cancelled``; that jobs wait and are tried again."""

    knows_cancelled: bool = False
    knows_queue: bool = False


def job_view(stored: StoredJob, viewer: Viewer, now: float) -> Job:
    """The job object of create, retrieve and list. ``now``: UNIX seconds."""
    request = JobRequest.model_validate_json(stored.row["request"])
    history = [status_entry(row, viewer) for row in stored.history]
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
        queue=_place(stored.row, now) if viewer.knows_queue else None,
        attempt=stored.row["attempt"],
    )


def status_entry(row: Row, viewer: Viewer) -> StatusEntry:
    status = JobStatus(row["status"])
    metadata = StatusMetadata.model_validate_json(row["metadata"])
    if not viewer.knows_queue:
        status, metadata = shown_unqueued(status, metadata)
    return StatusEntry(
        status=status if viewer.knows_cancelled else disguised(status),
        metadata=metadata,
        created_at=moment(row["created_us"]),
    )


def job_event(row: Row, viewer: Viewer) -> JobEvent:
    return JobEvent(job_uuid=row["job_uuid"], entry=status_entry(row, viewer))


def _place(row: Row, now: float) -> QueuePlace | None:
    if row["state"] != JobState.QUEUED.value:
        return None
    return queue_place((row["queue_position"], row["queue_length"], row["queue_starts_us"]), now)


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

"""Waiting and repeated attempts, towards peers that did not announce ``queue``."""

from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import JobStatus
from compute_horde.protocol.facilitator_validator import V2JobRequest


def without_scheduling(frame: str) -> str:
    """A ``V2JobRequest`` for a validator of the existing network, which refuses keys that it does not know."""
    return V2JobRequest.model_validate_json(frame).model_copy(update={"scheduling": None}).to_frame()


def shown_unqueued(status: JobStatus, metadata: StatusMetadata) -> tuple[JobStatus, StatusMetadata]:
    """A status for a client that knows nothing of waiting: a queued job was received, nothing of it has failed."""
    if status is JobStatus.QUEUED:
        return JobStatus.RECEIVED, StatusMetadata()
    return status, metadata.model_copy(update={"attempt": None, "queue": None})

"""Statuses for facilitators that did not announce ``queue``. Pure."""

from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import JobStatus
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate

_HEAD = 200
_QUEUED = f'"status":"{JobStatus.QUEUED.value}"'
_OURS = ('"attempt":', '"queue":')


def is_queued(frame: str) -> bool:
    """Whether the status is ``queued``: a facilitator that does not know it is not told."""
    return _QUEUED in frame[:_HEAD].replace(" ", "")


def as_older_know_it(frame: str) -> str:
    """The same status without attempt and queue."""
    if not any(key in frame for key in _OURS):
        return frame
    update = V0JobStatusUpdate.model_validate_json(frame)
    if update.metadata is None:
        return frame
    metadata = update.metadata.model_copy(update={"attempt": None, "queue": None})
    return update.model_copy(update={"metadata": metadata if metadata != StatusMetadata() else None}).to_frame()

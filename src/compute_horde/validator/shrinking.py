"""Statuses that are too large for a facilitator, made smaller. Pure."""

from compute_horde.protocol.details import FailureDetails, StatusMetadata
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate

KEPT_CHARACTERS = 64 * 1024
KEPT_MESSAGE_CHARACTERS = 4 * 1024
KEPT_CONTEXT_CHARACTERS = 16 * 1024
KEPT_NOTICES = 20
KEPT_NOTICE_CHARACTERS = 500
"""All kept together fit into the smallest frame of the existing network, 1 MiB, even where JSON needs six bytes
for a character."""

TOO_LARGE = "The result was too large for the facilitator: artifacts were left out and the output was cut"


def without_bulk(frame: str) -> str:
    """The same status without artifacts and hashes, and with the end of the output only."""
    update = V0JobStatusUpdate.model_validate_json(frame)
    if update.metadata and (failure := update.metadata.job_failure_details):
        metadata = update.metadata.model_copy(update={"job_failure_details": _shortened(failure)})
        return update.model_copy(update={"metadata": metadata}).to_frame()
    if update.metadata is None or (response := update.metadata.miner_response) is None:
        return bare(frame)
    small = response.model_copy(
        update={
            "docker_process_stdout": response.docker_process_stdout[-KEPT_CHARACTERS:],
            "docker_process_stderr": response.docker_process_stderr[-KEPT_CHARACTERS:],
            "artifacts": None,
            "upload_results": None,
            "image_digest": (response.image_digest or "")[:KEPT_NOTICE_CHARACTERS] or None,
            "output_hashes": None,
            "notices": [*_first(response.notices or []), TOO_LARGE],
        }
    )
    metadata = update.metadata.model_copy(update={"miner_response": small})
    return update.model_copy(update={"metadata": metadata}).to_frame()


def bare(frame: str) -> str:
    """The status and nothing else, save the number of a later attempt, which belongs to it."""
    update = V0JobStatusUpdate.model_validate_json(frame)
    attempt = update.metadata.attempt if update.metadata else None
    metadata = StatusMetadata(attempt=attempt) if attempt and attempt.number > 1 else None
    return V0JobStatusUpdate(uuid=update.uuid, status=update.status, metadata=metadata).to_frame()


def _first(notices: list[str]) -> list[str]:
    return [notice[:KEPT_NOTICE_CHARACTERS] for notice in notices[:KEPT_NOTICES]]


def _shortened(failure: FailureDetails) -> FailureDetails:
    """Without most of its output. The context stays if it is small: it tells a cancelled job from a failed one."""
    context = failure.context if len(str(failure.context)) <= KEPT_CONTEXT_CHARACTERS else None
    return failure.model_copy(
        update={
            "message": failure.message[:KEPT_MESSAGE_CHARACTERS],
            "context": context,
            "docker_process_stdout": (failure.docker_process_stdout or "")[-KEPT_CHARACTERS:],
            "docker_process_stderr": (failure.docker_process_stderr or "")[-KEPT_CHARACTERS:],
        }
    )

"""What accompanies a status: result, rejection, failure (sections 2.7 and 5.2)."""

from typing import Any

from pydantic import ConfigDict, JsonValue, SerializerFunctionWrapHandler, model_serializer

from compute_horde.protocol.base import Message, StrictMessage, without_unset
from compute_horde.protocol.enums import (
    FailureReason,
    HordeFailureReason,
    Participant,
    RejectionReason,
    Stage,
)
from compute_horde.protocol.scheduling import AttemptDetails, QueueDetails


class MinerResponse(Message):
    """The result of a job that completed.

    What follows ``upload_results`` is ours; older peers ignore it. ``timed_out``: the execution limit stopped the
    container, and what it had written was kept (G55). ``image_digest`` and ``output_hashes``: evidence for
    cross-validation, as in ``V0JobFinishedRequest``.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    docker_process_stdout: str
    docker_process_stderr: str
    artifacts: dict[str, str] | None = None
    upload_results: dict[str, str] | None = None
    exit_status: int | None = None
    timed_out: bool | None = None
    notices: list[str] | None = None
    image_digest: str | None = None
    output_hashes: dict[str, str] | None = None


class RejectionDetails(Message):
    rejected_by: Participant
    reason: RejectionReason
    message: str
    context: dict[str, JsonValue] | None = None


class FailureDetails(Message):
    reason: FailureReason
    stage: Stage
    message: str
    context: dict[str, JsonValue] | None = None
    docker_process_exit_status: int | None = None
    docker_process_stdout: str | None = None
    docker_process_stderr: str | None = None


class HordeFailureDetails(Message):
    reported_by: Participant
    reason: HordeFailureReason
    message: str
    context: dict[str, JsonValue] | None = None


class StreamingServerDetails(StrictMessage):
    streaming_server_cert: str | None = None
    streaming_server_address: str | None = None
    streaming_server_port: int | None = None


class StatusMetadata(Message):
    """Exactly what the status calls for is set; the rest is null and left out of HTTP answers.

    ``attempt`` and ``queue`` are ours, sent only to peers that announced ``queue``. A ``queued`` job that was
    tried before has the failure details of its last attempt.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    miner_response: MinerResponse | None = None
    job_rejection_details: RejectionDetails | None = None
    job_failure_details: FailureDetails | None = None
    horde_failure_details: HordeFailureDetails | None = None
    streaming_details: StreamingServerDetails | None = None
    attempt: AttemptDetails | None = None
    queue: QueueDetails | None = None

    @model_serializer(mode="wrap")
    def _as_older_peers_know_it(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unset(handler(self), "attempt", "queue")

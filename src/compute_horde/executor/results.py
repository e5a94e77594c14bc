"""The message that ends a job, always small enough for the link."""

from compute_horde.executor.execution import Execution
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, Message
from compute_horde.protocol.uploads import UploadResponse
from compute_horde.protocol.validator_miner import V0JobFinishedRequest

MAX_NOTICES = 100
_SMALL_CHARS = 50_000


def finished(
    job_uuid: str,
    execution: Execution,
    artifacts: dict[str, str],
    upload_results: dict[str, str] | None,
    notices: list[str],
    output_hashes: dict[str, str],
) -> Message:
    """The result of a job that ran to its end or to its time limit."""
    message = V0JobFinishedRequest(
        job_uuid=job_uuid,
        docker_process_stdout=execution.stdout or "",
        docker_process_stderr=execution.stderr or "",
        artifacts=artifacts,
        upload_results=upload_results,
        exit_status=execution.exit_status,
        timed_out=execution.timed_out,
        notices=notices[:MAX_NOTICES] or None,
        image_digest=execution.image.id if execution.image else None,
        output_hashes=output_hashes,
    )
    return last_message(message)


def last_message(message: Message) -> Message:
    """The same, with less of both streams, then of the uploads' answers, if it would not fit into one frame."""
    if _fits(message):
        return message
    streams = ("docker_process_stdout", "docker_process_stderr")
    message = message.model_copy(update={name: _shortened(getattr(message, name, None) or "") for name in streams})
    if _fits(message) or not isinstance(message, V0JobFinishedRequest):
        return message
    empty = UploadResponse().to_frame()
    return message.model_copy(update={"upload_results": dict.fromkeys(message.upload_results or {}, empty)})


def _fits(message: Message) -> bool:
    return len(message.to_frame().encode()) < MAX_MINER_FRAME_BYTES


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * _SMALL_CHARS else f"{text[:_SMALL_CHARS]} ... {text[-_SMALL_CHARS:]}"

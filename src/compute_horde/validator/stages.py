"""What a miner's message means for a job, and which deadline runs in each stage (section 6.5). Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from compute_horde.lifecycle.deadlines import Limits
from compute_horde.lifecycle.states import PROGRESS, JobState
from compute_horde.protocol.details import StatusMetadata, StreamingServerDetails
from compute_horde.protocol.validator_miner import (
    V0AcceptJobRequest,
    V0ExecutionDoneRequest,
    V0ExecutorReadyRequest,
    V0StreamingJobReadyRequest,
    V0VolumesReadyRequest,
)

Progress = (
    V0AcceptJobRequest
    | V0ExecutorReadyRequest
    | V0VolumesReadyRequest
    | V0StreamingJobReadyRequest
    | V0ExecutionDoneRequest
)


class Stage(NamedTuple):
    """``limit`` is added to the running deadline when the wait for ``target`` begins."""

    target: JobState
    limit: float
    late: str


def stages_after_ready(limits: Limits, *, streaming: bool) -> Iterator[Stage]:
    """From the full request to the result; ``late`` is the failure's code."""
    yield Stage(JobState.VOLUMES_READY, limits.download, "volumes_late")
    if streaming:
        yield Stage(JobState.STREAMING_READY, limits.streaming_start, "streaming_late")
    yield Stage(JobState.EXECUTION_DONE, limits.execution, "execution_late")
    yield Stage(JobState.COMPLETED, limits.upload, "result_late")


LATE = {
    "miner_silent": "The miner neither accepted nor declined the job in time",
    "executor_late": "The executor was not ready in time",
    "volumes_late": "The inputs were not downloaded in time",
    "streaming_late": "The job did not start streaming in time",
    "execution_late": "The job's end was not reported in time",
    "result_late": "The result did not arrive in time",
}


def is_past(state: JobState, target: JobState) -> bool:
    """Whether ``target`` was reached or skipped."""
    return state.is_terminal or (target in PROGRESS and PROGRESS.index(state) >= PROGRESS.index(target))


def state_of(message: Progress) -> tuple[JobState, StatusMetadata | None]:
    """The state that a progress message reports, with its metadata."""
    match message:
        case V0AcceptJobRequest():
            return JobState.ACCEPTED, None
        case V0ExecutorReadyRequest():
            return JobState.EXECUTOR_READY, None
        case V0VolumesReadyRequest():
            return JobState.VOLUMES_READY, None
        case V0StreamingJobReadyRequest():
            details = StreamingServerDetails(
                streaming_server_cert=message.public_key,
                streaming_server_address=message.ip,
                streaming_server_port=message.port,
            )
            return JobState.STREAMING_READY, StatusMetadata(streaming_details=details)
        case V0ExecutionDoneRequest():
            return JobState.EXECUTION_DONE, None

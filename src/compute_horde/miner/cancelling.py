"""A cancelled job: what ends it, and what its end is called."""

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.compat.cancelled import CANCELLED_CODE, says_cancelled
from compute_horde.protocol.enums import Participant, Stage
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.validator_miner import V0HordeFailedRequest, V0JobFailedRequest

_STAGES = {
    JobState.ACCEPTED: Stage.EXECUTOR_STARTUP,
    JobState.EXECUTOR_READY: Stage.VOLUME_DOWNLOAD,
    JobState.VOLUMES_READY: Stage.EXECUTION,
    JobState.STREAMING_READY: Stage.EXECUTION,
    JobState.EXECUTION_DONE: Stage.RESULT_UPLOAD,
}


def cancelled(state: JobState, details: str = "") -> Problem:
    """The end of a job that was cancelled in ``state``. ``details``: what else there is to say."""
    text = "The job was cancelled."
    return problem(CANCELLED_CODE, f"{text} {details}".rstrip(), _STAGES.get(state, Stage.UNKNOWN))


def as_cancelled(message: V0JobFailedRequest | V0HordeFailedRequest, state: JobState) -> V0JobFailedRequest:
    """The executor's report about a job that was to be cancelled, as the end of a cancelled one.

    What was printed is kept; a horde failure has nothing of it.
    """
    if isinstance(message, V0JobFailedRequest):
        if is_cancelled(message):
            return message
        kept = message
    else:
        kept = V0JobFailedRequest(job_uuid=message.job_uuid)
    end = to_wire(
        cancelled(state, f"Its executor reported: {message.message[:500]}"),
        message.job_uuid,
        reported_by=Participant.MINER,
        stdout=kept.docker_process_stdout,
        stderr=kept.docker_process_stderr,
        exit_status=kept.docker_process_exit_status,
    )
    return V0JobFailedRequest.model_validate(end.model_dump())


def is_cancelled(message: object) -> bool:
    """Whether a last message says that the job was cancelled."""
    return isinstance(message, V0JobFailedRequest) and says_cancelled(message.context)

"""Messages that only executors before ``[git]`` 32fa9d14 send (sections 6.4 and 7.1)."""

from compute_horde.protocol.enums import FailureReason, HordeFailureReason, Participant, Stage
from compute_horde.protocol.validator_miner import (
    V0ExecutorFailedRequest,
    V0HordeFailedRequest,
    V0JobFailedRequest,
    V0StreamingJobNotReadyRequest,
)


def executor_failed(old: V0ExecutorFailedRequest) -> V0HordeFailedRequest:
    return V0HordeFailedRequest(
        job_uuid=old.job_uuid,
        reported_by=Participant.EXECUTOR,
        message="The executor failed",
        reason=HordeFailureReason.GENERIC_ERROR,
    )


def streaming_not_ready(old: V0StreamingJobNotReadyRequest) -> V0JobFailedRequest:
    return V0JobFailedRequest(
        job_uuid=old.job_uuid,
        message="The streaming job did not become ready",
        reason=FailureReason.UNKNOWN,
        stage=Stage.STREAMING_STARTUP,
    )

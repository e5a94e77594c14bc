"""The executor's WebSocket to its miner (section 7.1). The executor dials, with its token in the URL.

An executor of ours that lost its connection dials again with the same token. It is sent the initial request and,
if it was sent before, the job request once more, and repeats every stage message; each side drops what it has
already seen (G47).
"""

from typing import Annotated

from pydantic import Field, TypeAdapter

from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.validator_miner import (
    GenericError,
    V0ExecutionDoneRequest,
    V0ExecutorFailedRequest,
    V0ExecutorReadyRequest,
    V0HordeFailedRequest,
    V0InitialJobRequest,
    V0JobFailedRequest,
    V0JobFinishedRequest,
    V0JobRequest,
    V0MachineSpecsRequest,
    V0StreamingJobNotReadyRequest,
    V0StreamingJobReadyRequest,
    V0VolumesReadyRequest,
)

EXECUTOR_PATH = "/v0.1/executor_interface/"

MinerToExecutor = Annotated[
    V0InitialJobRequest | V0JobRequest | V0CancelJobRequest | V0JobLogsRequest | GenericError,
    Field(discriminator="message_type"),
]
MINER_TO_EXECUTOR: TypeAdapter[MinerToExecutor] = TypeAdapter(MinerToExecutor)

ExecutorToMiner = Annotated[
    V0ExecutorReadyRequest
    | V0VolumesReadyRequest
    | V0StreamingJobReadyRequest
    | V0ExecutionDoneRequest
    | V0MachineSpecsRequest
    | V0JobFinishedRequest
    | V0JobFailedRequest
    | V0HordeFailedRequest
    | V0ExecutorFailedRequest
    | V0StreamingJobNotReadyRequest
    | V0JobLogsResponse
    | GenericError,
    Field(discriminator="message_type"),
]
EXECUTOR_TO_MINER: TypeAdapter[ExecutorToMiner] = TypeAdapter(ExecutorToMiner)


def executor_token(job_uuid: str, nonce: str) -> str:
    """The bearer secret of one executor for one job: ``<job uuid>-<uuid4>``, 73 characters."""
    return f"{job_uuid}-{nonce}"

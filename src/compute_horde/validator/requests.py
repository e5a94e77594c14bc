"""The two requests that a miner gets for a job (section 6.3), made from what the user signed. Pure."""

from compute_horde.lifecycle.deadlines import Limits
from compute_horde.protocol.executor_classes import EXECUTOR_CLASSES
from compute_horde.protocol.facilitator_validator import V2JobRequest
from compute_horde.protocol.receipts import JobStartedPayload
from compute_horde.protocol.signing import Signer
from compute_horde.protocol.validator_miner import V0InitialJobRequest, V0JobRequest, signed_request
from compute_horde.validator.rows import IssuedReceipt
from compute_horde.validator.settings import ValidatorSettings

TIMEOUT_SECONDS = 300
"""What the network's validators always send; miners ignore it beside ``executor_timing``."""


def limits_of(request: V2JobRequest, settings: ValidatorSettings) -> Limits:
    """The job's own limits with the validator's."""
    return Limits(
        download=request.download_time_limit,
        execution=request.execution_time_limit,
        upload=request.upload_time_limit,
        streaming_start=request.streaming_start_time_limit if request.streaming_details else 0,
        leeway=settings.leeway,
        reservation=settings.reservation_limit,
        startup=settings.executor_startup_limit,
    )


def initial_request(
    request: V2JobRequest, limits: Limits, receipt: IssuedReceipt, signer: Signer
) -> V0InitialJobRequest:
    """The reservation: carries the volume, so that the executor can prepare. The receipt names the attempt."""
    message = V0InitialJobRequest(
        job_uuid=receipt.job_uuid,
        executor_class=request.executor_class,
        docker_image=request.docker_image,
        timeout_seconds=TIMEOUT_SECONDS,
        volume=request.volume,
        job_started_receipt_payload=JobStartedPayload.model_validate_json(receipt.payload),
        job_started_receipt_signature=receipt.signature,
        streaming_details=request.streaming_details,
        executor_timing=limits.timing(),
    )
    return signed_request(message, signer)


def job_request(request: V2JobRequest, name: str, signer: Signer) -> V0JobRequest:
    """The rest of the job, once its executor is ready. ``name``: the attempt's."""
    message = V0JobRequest(
        job_uuid=name,
        executor_class=request.executor_class,
        docker_image=request.docker_image,
        docker_run_options_preset=EXECUTOR_CLASSES[request.executor_class].preset,
        docker_run_cmd=request.args,
        env=request.env,
        volume=None,
        output_upload=request.output_upload,
        artifacts_dir=request.artifacts_dir or None,
    )
    return signed_request(message, signer)

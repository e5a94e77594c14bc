"""How a job is declined: a reason for older peers, a problem for newer ones (sections 6.4 and 6.6)."""

from compute_horde.protocol.enums import ExecutorClass, Fault, RejectionReason, Stage
from compute_horde.protocol.problems import NOT_STORED, Problem
from compute_horde.protocol.receipts import Receipt
from compute_horde.protocol.validator_miner import V0DeclineJobRequest


def _decline(
    job_uuid: str, reason: RejectionReason, found: Problem, receipts: list[Receipt] | None = None
) -> V0DeclineJobRequest:
    return V0DeclineJobRequest(
        job_uuid=job_uuid,
        message=found.message,
        reason=reason,
        receipts=receipts or [],
        context=found.to_context(),
    )


def busy(job_uuid: str, executor_class: ExecutorClass, excuses: list[Receipt]) -> V0DeclineJobRequest:
    """Every executor of the class is at work; the receipts show for whom."""
    found = Problem(
        code="busy",
        message=f"Every executor of class {executor_class.value} is busy",
        stage=Stage.EXECUTOR_STARTUP,
        fault=Fault.NOBODY,
        retryable=True,
        hint="Send the job to another miner, or wait.",
    )
    return _decline(job_uuid, RejectionReason.BUSY, found, excuses)


def class_not_offered(job_uuid: str, executor_class: ExecutorClass) -> V0DeclineJobRequest:
    """G44."""
    found = Problem(
        code="executor_class_not_offered",
        message=f"This miner has no executors of class {executor_class.value}",
        stage=Stage.EXECUTOR_STARTUP,
        fault=Fault.NOBODY,
        retryable=True,
        hint="Send the job to a miner whose manifest names the class.",
    )
    return _decline(job_uuid, RejectionReason.UNKNOWN, found)


def limits_too_long(job_uuid: str, wanted_s: float, allowed_s: float) -> V0DeclineJobRequest:
    """The job's own limits would hold an executor for longer than this miner's operator allows."""
    found = Problem(
        code="limits_too_long",
        message=f"The job's limits add up to {wanted_s:.0f} s; this miner takes jobs of up to {allowed_s:.0f} s",
        stage=Stage.EXECUTOR_STARTUP,
        fault=Fault.NOBODY,
        retryable=True,
        hint="Lower the job's time limits, or send it to a miner that takes longer ones.",
        details={"wanted_s": wanted_s, "allowed_s": allowed_s},
    )
    return _decline(job_uuid, RejectionReason.UNKNOWN, found)


def invalid_receipt(job_uuid: str, why: str) -> V0DeclineJobRequest:
    """G45."""
    found = Problem(
        code="invalid_receipt",
        message=f"The JobStarted receipt is not good: {why}",
        fault=Fault.VALIDATOR,
        hint="Sign the receipt for this miner and this job with the validator's hotkey.",
    )
    return _decline(job_uuid, RejectionReason.INVALID_RECEIPT, found)


def invalid_signature(job_uuid: str) -> V0DeclineJobRequest:
    found = Problem(
        code="invalid_signature",
        message="The request's validator_signature does not cover the request as it arrived",
        fault=Fault.VALIDATOR,
        hint="Sign the whole message with the validator's hotkey.",
    )
    return _decline(job_uuid, RejectionReason.INVALID_SIGNATURE, found)


def not_stored(job_uuid: str) -> V0DeclineJobRequest:
    """The miner could not write the job down, so it does not take it: its disk is full, or its database away."""
    found = Problem(
        code=NOT_STORED,
        message="The miner could not store the job",
        fault=Fault.MINER,
        retryable=True,
        hint="Send the job again, now to another miner or later to this one.",
    )
    return _decline(job_uuid, RejectionReason.UNKNOWN, found)

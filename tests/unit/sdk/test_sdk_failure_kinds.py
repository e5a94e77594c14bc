"""A failure is of the class that SDK 0.0.19 gave it."""

from typing import Any

import pytest

from compute_horde_sdk import v1
from compute_horde_sdk._internal.wire.fake import FakeFacilitator

SPEC = v1.ComputeHordeJobSpec("always_on.test", "SN0", "alpine")
H = {"reported_by": "miner", "reason": "executor_disconnected", "message": "gone", "context": {"a": 1}}
J = {"reason": "nonzero_return_code", "stage": "execution", "message": "exit 1"}
R = {"rejected_by": "validator", "reason": "busy", "message": "full"}


@pytest.mark.parametrize(
    ("status", "metadata", "kind"),
    [
        ("horde_failed", {"horde_failure_details": H}, v1.ComputeHordeHordeFailure),
        ("failed", {"horde_failure_details": H}, v1.ComputeHordeHordeFailure),
        ("failed", {"job_failure_details": J}, v1.ComputeHordeJobFailure),
        ("rejected", {"job_rejection_details": R}, v1.ComputeHordeJobRejection),
        ("rejected", {}, v1.ComputeHordeJobRejection),
        ("horde_failed", {}, v1.ComputeHordeHordeFailure),
        ("failed", {}, v1.ComputeHordeJobFailure),
        ("cancelled", {}, v1.ComputeHordeJobFailure),
    ],
)
async def test_which_kind_of_failure(status: str, metadata: Any, kind: type) -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job = await client.create_job(SPEC)
        fake.advance(job.uuid, status, metadata)
        await job.refresh_from_facilitator()
    assert type(job.error) is kind

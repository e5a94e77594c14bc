"""``run_until_complete``: the same job again, until it completes or cannot be helped by that."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from compute_horde.protocol.enums import Fault
from compute_horde_sdk._internal.exceptions import ComputeHordeJobError, ComputeHordeValidationError
from compute_horde_sdk._internal.following import awaited, deadline
from compute_horde_sdk._internal.models import ComputeHordeJobStatus
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec

if TYPE_CHECKING:  # the client imports this
    from compute_horde_sdk._internal.client import ComputeHordeClient
    from compute_horde_sdk._internal.job import ComputeHordeJob
    from compute_horde_sdk._internal.wiring import Wiring

MAX_PAUSE_S = 5.0


async def run_attempts(
    client: "ComputeHordeClient",
    spec: ComputeHordeJobSpec,
    on_trusted_miner: bool,
    callback: "Callable[[ComputeHordeJob], object] | None",
    timeout: float | None,
    max_attempts: int,
) -> "ComputeHordeJob":
    """See ``ComputeHordeClient.run_until_complete``."""
    job: ComputeHordeJob | None = None

    def late() -> str:
        last = f"; the last, {job.uuid}, is {job.status.value}" if job else ""
        return f"no attempt completed within {timeout} s{last}"

    async with deadline(timeout, late):
        created = made = 0
        while True:
            created += 1
            job = await client.create_job(spec, on_trusted_miner)
            if callback is not None:
                await awaited(callback(job))
            await job.wait()
            made += max(len(job.attempts_made), 1)
            if 0 < max_attempts <= made or not worth_another(job.status, job.error):
                return job
            await client._wiring.sleep(pause_s(created, client._wiring))


def worth_another(status: ComputeHordeJobStatus, error: ComputeHordeJobError | None) -> bool:
    """Whether a job that ended like this may end otherwise when it is sent again.

    The horde's rule, ``protocol.problems.is_worth_another_attempt``, once more: that one would load pydantic.
    """
    if error is None or status is ComputeHordeJobStatus.CANCELLED or error.code == "cancelled":
        return False
    return error.retryable and error.fault is not Fault.USER


def pause_s(attempt: int, wiring: "Wiring") -> float:
    """After the ``attempt``-th job, from 1: doubling from 0.2 s to 5 s, and up to a tenth more."""
    return float(min(0.2 * 2 ** min(attempt - 1, 10), MAX_PAUSE_S) * (1 + 0.1 * wiring.jitter()))


def check_attempts(max_attempts: object) -> None:
    """:raises ComputeHordeValidationError: not a whole number."""
    if isinstance(max_attempts, bool) or not isinstance(max_attempts, int):
        raise ComputeHordeValidationError(
            "max_attempts must be a whole number; 0 or less is no limit", field="max_attempts"
        )

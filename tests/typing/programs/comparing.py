"""Cross-validation with ready-made comparators and with the user's own."""

from typing import assert_type

from compute_horde_sdk.v1 import (
    Comparator,
    Comparison,
    ComputeHordeJobResult,
    ComputeHordeJobSpec,
    CrossValidation,
    CrossValidationReport,
    byte_exact,
    ignoring,
    numeric,
    sync,
)
from compute_horde_sdk.v1 import ComputeHordeClient as AsyncClient


def same_length(own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> bool:
    return len(own.stdout) == len(trusted.stdout)


async def asking_elsewhere(own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> Comparison:
    return Comparison(not_compared=("stderr",))


ready_made: list[Comparator] = [byte_exact(), numeric(rtol=1e-3), ignoring("*.log", comparator=numeric())]
own: list[Comparator] = [same_length, asking_elsewhere]


async def awaiting(client: AsyncClient, spec: ComputeHordeJobSpec) -> None:
    job = await client.create_job(spec)
    assert_type(await job.wait_for_cross_validation(timeout=60), CrossValidationReport)


def blocking(client: sync.ComputeHordeClient, spec: ComputeHordeJobSpec) -> None:
    job = client.create_job(
        "always_on.test", "SN0", "alpine", cross_validation=CrossValidation(rate=0.5, comparator=same_length)
    )
    assert_type(job.wait_for_cross_validation(timeout=60), CrossValidationReport)
    assert_type(job.cross_validation, CrossValidationReport | None)

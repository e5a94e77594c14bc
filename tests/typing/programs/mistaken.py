"""What a type checker has to refuse. An ignore that is not needed is an error in strict mode."""

from compute_horde_sdk import v1
from compute_horde_sdk.v1 import sync


async def awaiting(client: v1.ComputeHordeClient, spec: v1.ComputeHordeJobSpec) -> None:
    await client.create_job("always_on.test", "SN0")  # type: ignore[call-overload] # no image
    await client.create_job(spec, "SN0", "alpine")  # type: ignore[call-overload] # both styles at once
    await client.run_until_complete(spec, job_attempt_callback=lambda: None)  # type: ignore[arg-type,misc] # no job
    await client.create_job("a", None, "i", attempts="3")  # type: ignore[call-overload] # no number
    await client.get_job(3)  # type: ignore[arg-type] # no text
    v1.ComputeHordeClient("no key", "5V")  # type: ignore[arg-type] # cannot sign


def blocking(client: sync.ComputeHordeClient, spec: sync.ComputeHordeJobSpec, other: v1.ComputeHordeJob) -> None:
    client.create_job("always_on.test", "SN0")  # type: ignore[call-overload] # no image
    client.run_until_complete(spec, job_attempt_callback=lambda: None)  # type: ignore[arg-type,misc] # no job
    client.get_job(3)  # type: ignore[arg-type] # no text
    job: sync.ComputeHordeJob = other  # type: ignore[assignment] # one that has to be awaited
    job.status = "completed"  # type: ignore[misc,assignment] # is told by the facilitator


def comparing(own: str) -> bool:
    return bool(own)


v1.CrossValidation(comparator=comparing)  # type: ignore[arg-type] # takes one text, not two results

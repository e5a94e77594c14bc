"""The second job: the same on the trusted miner, linked to the first, and never more than one of it."""

from collections.abc import Mapping

from compute_horde.protocol.extensions import Extension
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError
from compute_horde_sdk._internal.port import Horde, JobQuery, JobSnapshot
from compute_horde_sdk._internal.specs.volumes import OutputVolume

QUEUE_PREFIX = "cross-validates:"


def repetition_queue(job_uuid: str) -> str:
    """The queue of a job's repetition; facilitators that know no links find it by this."""
    return QUEUE_PREFIX + job_uuid


async def create_repetition(
    horde: Horde, job: JobSnapshot, uploads: Mapping[str, OutputVolume] | None = None
) -> str:
    """Send the same job to the trusted miner, with other uploads.

    :returns: the repetition's uuid; of the one that is there already, when another process was faster.
    :raises ComputeHordeError: refused, or out of reach.
    """
    try:
        return (await horde.repeat_on_trusted_miner(job, repetition_queue(job.uuid), uploads)).uuid
    except ComputeHordeValidationError as error:
        if error.field != "cross_validates":
            raise
        there = (await horde.fetch(job.uuid)).trusted_job_uuid
        if there is None:
            raise
        return there


async def find_repetition(horde: Horde, job: JobSnapshot) -> str | None:
    """The repetition of a job that was just fetched, by its link or by its queue; None when there is none.

    :raises ComputeHordeError: refused, or out of reach.
    """
    if job.trusted_job_uuid or Extension.CROSS_VALIDATION in await horde.extensions():
        return job.trusted_job_uuid
    queue = repetition_queue(job.uuid)
    found = (await horde.list_jobs(JobQuery(queue=queue))).jobs
    fitting = [other for other in found if other.queue == queue and other.on_trusted_miner]
    return min(fitting, key=lambda other: (other.created_at, other.uuid)).uuid if fitting else None

"""The body of a job's repetition on the trusted miner, made from what the facilitator says of the job itself.

So it repeats what really ran, whatever has become since of the spec, or of the process, that the job came from.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from compute_horde.protocol.sdk_facilitator import JobRequest
from compute_horde_sdk._internal.exceptions import ComputeHordeResponseError
from compute_horde_sdk._internal.port import JobSnapshot
from compute_horde_sdk._internal.specs.volumes import OutputVolume
from compute_horde_sdk._internal.wire.request import trusted_outputs


def repetition_body(job: JobSnapshot, queue: str, uploads: Mapping[str, OutputVolume] | None) -> dict[str, Any]:
    """As ``job_body``, for the job that repeats ``job``.

    :raises ComputeHordeValidationError: names the first of ``uploads`` that is wrong.
    :raises ComputeHordeResponseError: what the facilitator says of the job is no job that could be sent.
    """
    body: dict[str, Any] = {
        **job.order,
        "on_trusted_miner": True,
        "uploads": trusted_outputs(uploads),
        "tag": queue,
        "cross_validates": job.uuid,
    }
    try:
        request = JobRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ComputeHordeResponseError(
            f"the facilitator's account of job {job.uuid} cannot be repeated: {where}: {first['msg']}",
            code="malformed_response",
        ) from None
    # signed key by key, in the order of the models (PROTOCOL.md 3.4), which a database need not have kept
    body["volumes"] = [volume.model_dump(mode="json") for volume in request.volumes]
    return body

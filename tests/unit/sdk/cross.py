"""What the tests of cross-validation share: pairs of jobs on the fake facilitator, and their ends."""

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx

from compute_horde_sdk._internal.client import ComputeHordeClient
from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation
from compute_horde_sdk._internal.job import ComputeHordeJob
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec
from compute_horde_sdk._internal.specs.volumes import HTTPOutputVolume
from compute_horde_sdk._internal.wire.fake import FakeFacilitator

POST = "/api/v1/job-docker/"
REPORT = "/api/v1/cheated-job/"
SPEC = ComputeHordeJobSpec("always_on.test", "SN0", "alpine", args=["true"], artifacts_dir="/a")
ASKED = replace(SPEC, run_cross_validation=True)
UPLOAD = HTTPOutputVolume("PUT", "http://store.test/own")
TRUSTED_UPLOAD = HTTPOutputVolume("POST", "http://store.test/trusted", {"key": "x"})
REFUSED = httpx.Response(400, json={"error": "no"})


def finish(fake: FakeFacilitator, job_uuid: str, artifact: bytes = b"1", **members: Any) -> None:
    artifacts = {"/a/x": base64.b64encode(artifact).decode()}
    response: dict[str, Any] = {"docker_process_stdout": "", "docker_process_stderr": "", "artifacts": artifacts}
    response |= {"upload_results": {}, "exit_status": 0, **members}
    fake.advance(job_uuid, "completed", {"miner_response": response}, artifacts=response["artifacts"])


def fail(fake: FakeFacilitator, job_uuid: str, exit_code: int) -> None:
    details = {"reason": "nonzero_return_code", "stage": "execution", "message": "it said no"}
    fake.advance(job_uuid, "failed", {"job_failure_details": {**details, "docker_process_exit_status": exit_code}})


def horde_fail(fake: FakeFacilitator, job_uuid: str) -> None:
    details = {"reported_by": "miner", "reason": "generic_error", "message": "broken"}
    fake.advance(job_uuid, "horde_failed", {"horde_failure_details": details})


def state(job: ComputeHordeJob) -> str | None:
    return None if job.cross_validation is None else job.cross_validation.state.value


def bodies(fake: FakeFacilitator) -> list[dict[str, Any]]:
    return [json.loads(request.content) for request in fake.sent("POST", POST)]


def chosen(plan: CrossValidation) -> dict[str, Any]:
    return {"client_options": {"cross_validation": plan}}


async def until(happened: Callable[[], object]) -> None:
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


async def pair(client: ComputeHordeClient, spec: ComputeHordeJobSpec = ASKED) -> tuple[ComputeHordeJob, str]:
    job = await client.create_job(spec)
    assert job.cross_validation is not None
    assert job.cross_validation.trusted_job_uuid is not None
    return job, job.cross_validation.trusted_job_uuid

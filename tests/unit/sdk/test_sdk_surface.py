"""The door of the library: names, signatures, and what importing it costs."""

import datetime as dt
import inspect
import subprocess
import sys
import typing
from importlib import resources
from typing import Any

import pytest

from compute_horde_sdk import v1

NAMES = [
    "Comparator",
    "Comparison",
    "ComputeHordeAuthenticationError",
    "ComputeHordeClient",
    "ComputeHordeConnectionError",
    "ComputeHordeError",
    "ComputeHordeHordeFailure",
    "ComputeHordeJob",
    "ComputeHordeJobError",
    "ComputeHordeJobFailure",
    "ComputeHordeJobRejection",
    "ComputeHordeJobResult",
    "ComputeHordeJobSpec",
    "ComputeHordeJobStatus",
    "ComputeHordeJobStatusEntry",
    "ComputeHordeJobTimeoutError",
    "ComputeHordeNotFoundError",
    "ComputeHordeResponseError",
    "ComputeHordeTimeoutError",
    "ComputeHordeUnsupportedError",
    "ComputeHordeValidationError",
    "ComputeHordeValidatorNotConnectedError",
    "CrossValidation",
    "CrossValidationEvidence",
    "CrossValidationReport",
    "CrossValidationState",
    "Difference",
    "ExecutorClass",
    "Explanation",
    "FileHash",
    "HTTPInputVolume",
    "HTTPOutputVolume",
    "HttpOutputVolumeResponse",
    "HuggingfaceInputVolume",
    "InlineInputVolume",
    "InputVolume",
    "JobAttempt",
    "JobEvidence",
    "LogLine",
    "MappedJob",
    "MinerTrial",
    "OutputVolume",
    "QueuePlace",
    "byte_exact",
    "ignoring",
    "numeric",
    "s3_input_volume",
    "s3_output_volume",
]

RELEASED = [
    "ComputeHordeClient",
    "ComputeHordeError",
    "ComputeHordeHordeFailure",
    "ComputeHordeJob",
    "ComputeHordeJobFailure",
    "ComputeHordeJobRejection",
    "ComputeHordeJobResult",
    "ComputeHordeJobSpec",
    "ComputeHordeJobStatus",
    "ComputeHordeJobStatusEntry",
    "ComputeHordeJobTimeoutError",
    "ComputeHordeNotFoundError",
    "ExecutorClass",
    "HTTPInputVolume",
    "HTTPOutputVolume",
    "HuggingfaceInputVolume",
    "InlineInputVolume",
    "InputVolume",
    "OutputVolume",
]
"""What SDK 0.0.19 exports (PROTOCOL.md 2.13)."""

FLAT = (
    "(self, executor_class, job_namespace, docker_image, args=None, env=None, artifacts_dir=None, "
    "input_volumes=None, output_volumes=None, run_cross_validation=False, trusted_output_volumes=None, *, "
    "download_time_limit_sec=60, execution_time_limit_sec=300, upload_time_limit_sec=60, streaming=False, "
    "streaming_start_time_limit_sec=5, on_trusted_miner=False, cross_validation=None, "
    "queue_time_limit_sec=None, attempts=None, retry_backoff_sec=None, priority=0)"
)

SIGNATURES: dict[Any, str] = {
    v1.ComputeHordeClient: "(hotkey, compute_horde_validator_hotkey, job_queue=None, "
    "facilitator_url='https://facilitator.computehorde.io/api/v1/', *, cross_validation=None)",
    v1.ComputeHordeClient.create_job: FLAT,
    v1.ComputeHordeClient.run_until_complete: "(self, job_spec, on_trusted_miner=False, "
    "job_attempt_callback=None, timeout=None, max_attempts=3)",
    v1.ComputeHordeClient.map_jobs: "(self, specs, *, concurrency=10, on_trusted_miner=False, timeout=None, "
    "max_attempts=1)",
    v1.ComputeHordeClient.get_job: "(self, job_uuid)",
    v1.ComputeHordeClient.get_jobs: "(self, page=1, page_size=10)",
    v1.ComputeHordeClient.iter_jobs: "(self, *, pending=None)",
    v1.ComputeHordeClient.report_cheated_job: "(self, job_uuid, trusted_job_uuid, *, details=None)",
    v1.ComputeHordeClient.authenticate: "(self)",
    v1.ComputeHordeClient.aclose: "(self)",
    v1.ComputeHordeJob.wait: "(self, timeout=None, status_callback=None, *, queue_callback=None)",
    v1.ComputeHordeJob.wait_for_streaming: "(self, timeout=None)",
    v1.ComputeHordeJob.wait_for_cross_validation: "(self, timeout=None)",
    v1.ComputeHordeJob.logs: "(self, *, follow=False)",
    v1.ComputeHordeJob.cancel: "(self)",
    v1.ComputeHordeJob.explain: "(self)",
    v1.ComputeHordeJob.refresh_from_facilitator: "(self)",
    v1.ComputeHordeJobSpec: "(executor_class, job_namespace, docker_image, download_time_limit_sec=60, "
    "execution_time_limit_sec=300, upload_time_limit_sec=60, args=<factory>, env=<factory>, artifacts_dir=None, "
    "input_volumes=None, output_volumes=None, streaming=False, streaming_start_time_limit_sec=5, "
    "run_cross_validation=False, trusted_output_volumes=None, cross_validation=None, *, "
    "queue_time_limit_sec=None, attempts=None, retry_backoff_sec=None, priority=0)",
    v1.ComputeHordeJobResult: "(stdout='', stderr='', artifacts=<factory>, upload_results=<factory>, "
    "exit_code=None, timed_out=False, notices=<factory>, image_digest=None, output_hashes=None)",
    v1.ComputeHordeJobResult.add_upload_result: "(self, path, result)",
    v1.ComputeHordeJobResult.save_artifacts: "(self, directory, *, overwrite=False)",
    v1.ComputeHordeJobStatus.end_states: "()",
    v1.ComputeHordeJobStatus.is_failed: "(self)",
    v1.ComputeHordeJobStatus.is_in_progress: "(self)",
    v1.ComputeHordeJobStatus.is_streaming_ready: "(self)",
    v1.ComputeHordeJobStatus.is_successful: "(self)",
    v1.ComputeHordeJobStatusEntry: "(created_at, status, metadata=None, "
    "attempt=None, miner_hotkey=None, error=None)",
    v1.HttpOutputVolumeResponse: "(headers=<factory>, body='')",
    v1.HTTPInputVolume: "(url, sha256=None)",
    v1.HuggingfaceInputVolume: "(repo_id, repo_type=None, revision=None, allow_patterns=None)",
    v1.InlineInputVolume: "(contents, unpack=None)",
    v1.InlineInputVolume.from_file_contents: "(filename, contents, compress=False)",
    v1.InlineInputVolume.from_bytes: "(data)",
    v1.InlineInputVolume.from_text: "(text, encoding='utf-8')",
    v1.InlineInputVolume.from_path: "(path)",
    v1.InlineInputVolume.decoded: "(self)",
    v1.HTTPOutputVolume: "(http_method, url, form_fields=None, signed_headers=None)",
    v1.LogLine: "(stream, text, gap=False, attempt=1)",
    v1.QueuePlace: "(position=None, length=None, starts_in=None)",
    v1.JobAttempt: "(number, miner_hotkey=None, outcome=None, error=None)",
    v1.MinerTrial: "(miner_hotkey, answer, message, remedy='', tries=0, last_at=None)",
    v1.Explanation: "(job_uuid, state, summary, reported_by, attempt=None, attempts=None, queue=None, "
    "queue_time_left=None, miners=(), remedies=())",
    v1.MappedJob: "(index, spec, job, error)",
    v1.s3_input_volume: "(bucket, key, *, expires_s=3600, sha256=None, client=None)",
    v1.s3_output_volume: "(bucket, key, *, expires_s=3600, client=None)",
}

JOB_ATTRIBUTES = [
    "attempt",
    "attempts",
    "attempts_made",
    "created_at",
    "cross_validation",
    "docker_image",
    "error",
    "executor_class",
    "job_namespace",
    "job_queue",
    "on_trusted_miner",
    "queue",
    "result",
    "status",
    "status_history",
    "streaming_private_key",
    "streaming_public_cert",
    "streaming_server_address",
    "streaming_server_cert",
    "streaming_server_port",
    "uuid",
]


def bare(signature: inspect.Signature) -> str:
    """Without annotations, which a type checker reads from the source."""
    empty = inspect.Parameter.empty
    parameters = [one.replace(annotation=empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=empty))


def test_exports_are_pinned_and_sorted() -> None:
    assert v1.__all__ == NAMES == sorted(NAMES)
    assert set(RELEASED) <= set(v1.__all__)
    assert all(hasattr(v1, name) for name in v1.__all__)


@pytest.mark.parametrize("callable_", SIGNATURES, ids=lambda it: it.__qualname__)
def test_signature(callable_: Any) -> None:
    assert bare(inspect.signature(callable_)) == SIGNATURES[callable_]


@pytest.mark.parametrize("kind", [v1.ComputeHordeClient, v1.ComputeHordeJob, v1.ComputeHordeJobResult])
def test_no_method_is_left_out(kind: type) -> None:
    methods = {member for name, member in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
    assert methods <= set(SIGNATURES)
    assert all(method.__doc__ for method in methods)


def test_what_a_job_has() -> None:
    from compute_horde_sdk._internal.port import JobSnapshot
    from compute_horde_sdk._internal.wire.fake import FakeFacilitator

    snapshot = JobSnapshot("u", v1.ComputeHordeJobStatus.SENT, (), dt.datetime.now(dt.UTC))
    job = v1.ComputeHordeJob(FakeFacilitator().client(), snapshot)
    methods = {name for name, _ in inspect.getmembers(v1.ComputeHordeJob, inspect.isfunction)}
    assert sorted(name for name in dir(job) if not name.startswith("_") and name not in methods) == JOB_ATTRIBUTES


def test_both_ways_to_call_create_job_are_typed() -> None:
    overloads = [bare(inspect.signature(one)) for one in typing.get_overloads(v1.ComputeHordeClient.create_job)]
    assert overloads == ["(self, job_spec, on_trusted_miner=False)", FLAT]
    shown = inspect.signature(v1.ComputeHordeClient.create_job)
    assert shown.parameters["docker_image"].annotation is str
    assert inspect.iscoroutinefunction(v1.ComputeHordeClient.create_job)
    assert "create_job(job_spec, on_trusted_miner=False)" in (v1.ComputeHordeClient.create_job.__doc__ or "")


def test_names_of_executor_classes_and_statuses() -> None:
    assert {name: one.value for name, one in v1.ExecutorClass.__members__.items()} == {
        "spin_up_4min__gpu_24gb": "spin_up-4min.gpu-24gb",
        "always_on__gpu_24gb": "always_on.gpu-24gb",
        "always_on__llm__a6000": "always_on.llm.a6000",
        "always_on__test": "always_on.test",
        "always_on__cpu__8c__16gb": "always_on.cpu.8c.16gb",
        "always_on__cpu_8c_16gb": "always_on.cpu.8c.16gb",
    }
    words = "sent received queued accepted executor_ready volumes_ready streaming_ready execution_done completed"
    expected = [*words.split(), "rejected", "failed", "horde_failed", "cancelled", "unknown"]
    assert [one.value for one in v1.ComputeHordeJobStatus] == expected


def test_every_error_is_in_the_tree_and_drawn() -> None:
    errors = [getattr(v1, name) for name in NAMES if name.endswith(("Error", "Failure", "Rejection"))]
    assert all(issubclass(error, v1.ComputeHordeError) for error in errors)
    drawing = inspect.getmodule(v1.ComputeHordeError).__doc__ or ""
    assert all(error.__name__ in drawing for error in errors)
    assert issubclass(v1.ComputeHordeValidationError, ValueError)
    assert issubclass(v1.ComputeHordeJobTimeoutError, TimeoutError)


def test_types_are_shipped() -> None:
    assert resources.files("compute_horde_sdk").joinpath("py.typed").is_file()


def test_importing_it_pulls_in_nothing_heavy() -> None:
    heavy = "litestar sqlalchemy websockets bittensor_wallet aiodocker uvicorn huggingface_hub httpx pydantic"
    heavy += " cryptography boto3"
    code = f"import sys, compute_horde_sdk.v1; print([m for m in {heavy.split()} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"

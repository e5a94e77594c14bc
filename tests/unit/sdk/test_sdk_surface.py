"""The door of the library: names, signatures, and what importing it costs."""

import inspect
import subprocess
import sys

import pytest

from compute_horde_sdk import v1

NAMES = [
    "ComputeHordeAuthenticationError",
    "ComputeHordeClient",
    "ComputeHordeConnectionError",
    "ComputeHordeError",
    "ComputeHordeJob",
    "ComputeHordeJobError",
    "ComputeHordeJobResult",
    "ComputeHordeJobStatus",
    "ComputeHordeJobStatusEntry",
    "ComputeHordeJobTimeoutError",
    "ComputeHordeNotFoundError",
    "ComputeHordeResponseError",
    "ComputeHordeTimeoutError",
    "ComputeHordeUnsupportedError",
    "ComputeHordeValidationError",
    "ComputeHordeValidatorNotConnectedError",
    "ExecutorClass",
    "HTTPInputVolume",
    "HTTPOutputVolume",
    "HttpOutputVolumeResponse",
    "HuggingfaceInputVolume",
    "InlineInputVolume",
    "InputVolume",
    "OutputVolume",
]

PARAMETERS = {
    v1.ComputeHordeClient: "hotkey compute_horde_validator_hotkey job_queue=None "
    "facilitator_url='https://facilitator.computehorde.io/api/v1/'",
    v1.ComputeHordeClient.create_job: "self executor_class job_namespace docker_image args=None env=None "
    "artifacts_dir=None input_volumes=None output_volumes=None run_cross_validation=False "
    "trusted_output_volumes=None download_time_limit_sec=60 execution_time_limit_sec=300 "
    "upload_time_limit_sec=60 streaming_start_time_limit_sec=5 on_trusted_miner=False",
    v1.ComputeHordeClient.get_job: "self job_uuid",
    v1.ComputeHordeClient.get_jobs: "self page=1 page_size=10",
    v1.ComputeHordeClient.iter_jobs: "self",
    v1.ComputeHordeClient.authenticate: "self",
    v1.ComputeHordeClient.aclose: "self",
    v1.ComputeHordeClient.report_cheated_job: "self job_uuid trusted_job_uuid details=None",
    v1.ComputeHordeJob: "client uuid status result=None",
    v1.ComputeHordeJob.wait: "self timeout=None",
    v1.ComputeHordeJob.refresh_from_facilitator: "self",
    v1.HTTPInputVolume: "url",
    v1.HuggingfaceInputVolume: "repo_id repo_type=None revision=None allow_patterns=None",
    v1.InlineInputVolume: "contents",
    v1.InlineInputVolume.from_file_contents: "filename contents compress=False",
    v1.HTTPOutputVolume: "http_method url form_fields=None signed_headers=None",
}


def test_exports_are_pinned_and_sorted() -> None:
    assert v1.__all__ == NAMES == sorted(NAMES)
    assert all(hasattr(v1, name) for name in NAMES)


@pytest.mark.parametrize("callable_", PARAMETERS, ids=lambda it: it.__qualname__)
def test_signature(callable_: object) -> None:
    assert callable(callable_)
    shown = [
        parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"
        for parameter in inspect.signature(callable_).parameters.values()
    ]
    assert " ".join(shown) == PARAMETERS[callable_]


def test_every_error_is_in_the_tree_and_drawn() -> None:
    errors = [getattr(v1, name) for name in NAMES if name.endswith("Error")]
    assert all(issubclass(error, v1.ComputeHordeError) for error in errors)
    drawing = inspect.getmodule(v1.ComputeHordeError).__doc__ or ""
    assert all(error.__name__ in drawing for error in errors)
    assert issubclass(v1.ComputeHordeValidationError, ValueError)
    assert issubclass(v1.ComputeHordeJobTimeoutError, TimeoutError)


def test_importing_it_pulls_in_no_server_library() -> None:
    heavy = "litestar sqlalchemy websockets bittensor_wallet aiodocker uvicorn huggingface_hub"
    code = f"import sys, compute_horde_sdk.v1; print([m for m in {heavy.split()} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"

"""The two ways to call ``create_job``: with a spec, or with its fields one by one (PROTOCOL.md 2.12 and 2.13)."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_overloads

from compute_horde.protocol.enums import ExecutorClass
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError
from compute_horde_sdk._internal.specs.job import (
    DOWNLOAD_LIMIT_S,
    EXECUTION_LIMIT_S,
    STREAMING_START_LIMIT_S,
    UPLOAD_LIMIT_S,
    ComputeHordeJobSpec,
)
from compute_horde_sdk._internal.specs.volumes import InputVolume, OutputVolume

if TYPE_CHECKING:  # only a type
    from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation

F = TypeVar("F", bound=Callable[..., object])


def shown_as_last_overload(function: F) -> F:
    """Let ``help``, notebooks and ``inspect.signature`` show the last overload instead of ``*args, **kwargs``."""
    signature = inspect.signature(get_overloads(function)[-1])
    function.__signature__ = signature  # type: ignore[attr-defined]  # read by inspect
    return function


def check_spec(job_spec: object) -> ComputeHordeJobSpec:
    """A copy of ``job_spec``, so that what the caller does with it later changes nothing.

    :raises ComputeHordeValidationError: it is no spec.
    """
    if not isinstance(job_spec, ComputeHordeJobSpec):
        raise ComputeHordeValidationError("job_spec must be a ComputeHordeJobSpec", field="job_spec")
    return replace(job_spec)


def spec_of_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[ComputeHordeJobSpec, bool]:
    """The spec, and whether the job is for the trusted miner.

    :raises TypeError: the call fits neither way, as Python itself would say.
    :raises ComputeHordeValidationError: ``job_spec`` is no spec.
    """
    if "job_spec" in kwargs or (args and isinstance(args[0], ComputeHordeJobSpec)):
        return _of_spec(*args, **kwargs)
    return _of_fields(*args, **kwargs)


def _of_spec(job_spec: ComputeHordeJobSpec, on_trusted_miner: bool = False) -> tuple[ComputeHordeJobSpec, bool]:
    return check_spec(job_spec), on_trusted_miner


def _of_fields(
    executor_class: ExecutorClass | str,
    job_namespace: str | None,
    docker_image: str,
    args: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    artifacts_dir: str | None = None,
    input_volumes: Mapping[str, InputVolume | Path] | None = None,
    output_volumes: Mapping[str, OutputVolume] | None = None,
    run_cross_validation: bool = False,
    trusted_output_volumes: Mapping[str, OutputVolume] | None = None,
    *,
    download_time_limit_sec: int = DOWNLOAD_LIMIT_S,
    execution_time_limit_sec: int = EXECUTION_LIMIT_S,
    upload_time_limit_sec: int = UPLOAD_LIMIT_S,
    streaming: bool = False,
    streaming_start_time_limit_sec: int = STREAMING_START_LIMIT_S,
    on_trusted_miner: bool = False,
    cross_validation: "CrossValidation | None" = None,
    queue_time_limit_sec: int | None = None,
    attempts: int | None = None,
    retry_backoff_sec: float | None = None,
    priority: int = 0,
) -> tuple[ComputeHordeJobSpec, bool]:
    spec = ComputeHordeJobSpec(
        executor_class=executor_class,
        job_namespace=job_namespace,
        docker_image=docker_image,
        download_time_limit_sec=download_time_limit_sec,
        execution_time_limit_sec=execution_time_limit_sec,
        upload_time_limit_sec=upload_time_limit_sec,
        args=[] if args is None else args,
        env={} if env is None else env,
        artifacts_dir=artifacts_dir,
        input_volumes=input_volumes,
        output_volumes=output_volumes,
        streaming=streaming,
        streaming_start_time_limit_sec=streaming_start_time_limit_sec,
        run_cross_validation=run_cross_validation,
        trusted_output_volumes=trusted_output_volumes,
        cross_validation=cross_validation,
        queue_time_limit_sec=queue_time_limit_sec,
        attempts=attempts,
        retry_backoff_sec=retry_backoff_sec,
        priority=priority,
    )
    return spec, on_trusted_miner


for _way in (_of_spec, _of_fields):  # Python names the function in the TypeError of a wrong call
    _way.__qualname__ = _way.__name__ = "create_job"

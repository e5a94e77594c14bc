"""The arguments of ``create_job``, checked and turned into the body that is signed and sent (PROTOCOL.md 2.5)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.paths import path_problem
from compute_horde.protocol.sdk_facilitator import JobRequest
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError
from compute_horde_sdk._internal.port import Order
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec
from compute_horde_sdk._internal.specs.volumes import (
    HTTPInputVolume,
    HTTPOutputVolume,
    HuggingfaceInputVolume,
    InlineInputVolume,
    check_text_mapping,
)
from compute_horde_sdk._internal.wire.answers import ARGUMENT_NAMES
from compute_horde_sdk._internal.wire.volumes import input_to_wire, output_to_wire
from compute_horde_sdk._internal.wire.wishes import wishes

VOLUME_PREFIX = "/volume/"
OUTPUT_PREFIX = "/output/"

MAX_BODY_BYTES = 32 * 1024 * 1024
"""What our facilitator takes unless it was told otherwise; one of the existing network takes about 2.5 MiB."""


def job_body(order: Order) -> dict[str, Any]:
    """The body, in the order that the network's clients send it; what is ours comes last, where it is set.

    :raises ComputeHordeValidationError: names the first argument that is wrong.
    """
    spec = order.spec
    named = (("docker_image", spec.docker_image), ("compute_horde_validator_hotkey", order.validator_hotkey))
    for name, value in named:
        _require(value, str, name, "a text")
    _require(spec.job_namespace, str | None, "job_namespace", "a text or None")
    _require(spec.artifacts_dir, str | None, "artifacts_dir", "a text or None")
    flags = (
        ("on_trusted_miner", order.on_trusted_miner),
        ("streaming", spec.streaming),
        ("run_cross_validation", spec.run_cross_validation),
    )
    for name, flag in flags:
        _require(flag, bool, name, "True or False")
    trusted_outputs(spec.trusted_output_volumes)  # of a later job; wrong ones are refused now
    _require(order.queue, str, "job_queue", "a text or None")
    check_text_mapping(spec.env, "env")
    body: dict[str, Any] = {
        "target_validator_hotkey": order.validator_hotkey,
        "executor_class": _executor_class(spec.executor_class).value,
        "docker_image": spec.docker_image,
        "job_namespace": spec.job_namespace,
        "args": _args(spec.args),
        "env": dict(spec.env or {}),
        "use_gpu": True,
        "artifacts_dir": spec.artifacts_dir or "",
        "on_trusted_miner": order.on_trusted_miner,
        **_limits(spec),
        "volumes": _inputs(spec.input_volumes),
        "uploads": _outputs(spec.output_volumes, "output_volumes"),
        **_extras(order),
        **wishes(spec),
    }
    _check_against_protocol(body)
    return body


def _limits(spec: ComputeHordeJobSpec) -> dict[str, int]:
    given = {
        "download_time_limit": spec.download_time_limit_sec,
        "execution_time_limit": spec.execution_time_limit_sec,
        "streaming_start_time_limit": spec.streaming_start_time_limit_sec,
        "upload_time_limit": spec.upload_time_limit_sec,
    }
    return {name: _seconds(value, ARGUMENT_NAMES[name]) for name, value in given.items()}


def _extras(order: Order) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if order.streaming_certificate is not None:
        extras["streaming_details"] = {"public_key": order.streaming_certificate}
    if order.queue:
        extras["tag"] = order.queue
    if order.spec.run_cross_validation:
        extras["run_cross_validation"] = True
    if order.cross_validates is not None:
        extras["cross_validates"] = order.cross_validates
    return extras


def encode_body(body: Mapping[str, Any]) -> bytes:
    """The JSON that is sent.

    :raises ComputeHordeValidationError: a text with a lone surrogate, which JSON cannot carry; larger than any
        facilitator takes.
    """
    try:
        content = json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        field = next((name for name, value in body.items() if not _encodable(value)), "")
        argument = ARGUMENT_NAMES.get(field, field)
        raise ComputeHordeValidationError(f"{argument} must be valid Unicode", field=argument) from None
    if len(content) > MAX_BODY_BYTES:
        raise ComputeHordeValidationError(
            f"the job is larger than {MAX_BODY_BYTES // 1024**2} MiB with its inline volumes",
            field="input_volumes",
            hint="Send large inputs as HTTPInputVolume or HuggingfaceInputVolume.",
        )
    return content


def _encodable(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _require(value: object, kind: Any, field: str, wanted: str) -> None:
    if not isinstance(value, kind):
        raise ComputeHordeValidationError(f"{field} must be {wanted}", field=field)


def _executor_class(value: object) -> ExecutorClass:
    try:
        return ExecutorClass(value)  # type: ignore[arg-type]  # any wrong type ends in the ValueError
    except ValueError:
        raise ComputeHordeValidationError(
            f"executor_class {str(value)[:100]!r} is not known",
            field="executor_class",
            hint=f"Use one of: {', '.join(ExecutorClass)}.",
        ) from None


def _args(value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ComputeHordeValidationError(
            "args must be a list of texts", field="args", hint="Write ['python', 'main.py'], not 'python main.py'."
        )
    for index, item in enumerate(value):
        _require(item, str, f"args[{index}]", "a text")
    return list(value)


def _seconds(value: object, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ComputeHordeValidationError(f"{field} must be a whole number of seconds, 0 or more", field=field)
    return value


def _inputs(volumes: object) -> list[dict[str, Any]]:
    wire = []
    kinds = HTTPInputVolume | HuggingfaceInputVolume | InlineInputVolume
    for mount, volume in _mounts(volumes, "input_volumes"):
        field = f"input_volumes[{mount!r}]"
        _require(volume, kinds, field, "an InlineInputVolume, HTTPInputVolume or HuggingfaceInputVolume")
        path = _below(mount, VOLUME_PREFIX, "Input volume", field)
        if path and (why := path_problem(path, allow_trailing_slash=True)):
            raise ComputeHordeValidationError(f"input volume path {mount[:100]!r} {why}", field=field)
        try:
            wire.append(input_to_wire(volume, path).model_dump(mode="json"))
        except ComputeHordeValidationError as error:
            raise ComputeHordeValidationError(error.message, field=field, hint=error.hint) from None
    return wire


def trusted_outputs(volumes: object) -> list[dict[str, Any]]:
    """``trusted_output_volumes`` on the wire: the uploads of the job that repeats another one.

    :raises ComputeHordeValidationError: names the first that is wrong.
    """
    return _outputs(volumes, "trusted_output_volumes")


def _outputs(volumes: object, argument: str) -> list[dict[str, Any]]:
    wire = []
    for mount, volume in _mounts(volumes, argument):
        field = f"{argument}[{mount!r}]"
        _require(volume, HTTPOutputVolume, field, "an HTTPOutputVolume")
        path = _below(mount, OUTPUT_PREFIX, "Output volume", field)
        if why := path_problem(path):
            raise ComputeHordeValidationError(f"output volume path {mount[:100]!r} {why}", field=field)
        wire.append(output_to_wire(volume, path).model_dump(mode="json"))
    return wire


def _mounts(volumes: object, field: str) -> list[tuple[str, Any]]:
    if volumes is None:
        return []
    _require(volumes, Mapping, field, "a mapping of mount paths to volumes")
    return list(volumes.items())  # type: ignore[attr-defined]  # a Mapping, as just checked


def _below(mount: object, prefix: str, what: str, field: str) -> str:
    if not isinstance(mount, str) or not mount.startswith(prefix):
        raise ComputeHordeValidationError(f"{what} paths must start with {prefix!r}", field=field)
    return mount.removeprefix(prefix)


def _check_against_protocol(body: Mapping[str, Any]) -> None:
    """What the facilitator itself will check, found out before anything is sent."""
    try:
        JobRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name, *rest = [str(part) for part in first["loc"]] or ["job"]
        argument = ARGUMENT_NAMES.get(name, name)
        message = first["msg"].removeprefix("Value error, ")
        said = message if message.startswith(argument) else f"{argument}: {message}"
        raise ComputeHordeValidationError(said, field=".".join([argument, *rest])) from None

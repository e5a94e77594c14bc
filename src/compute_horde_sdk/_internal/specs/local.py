"""Local files and folders among a job's inputs, read before it is created."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec
from compute_horde_sdk._internal.specs.volumes import InlineInputVolume, InputVolume


async def with_local_files(spec: ComputeHordeJobSpec) -> ComputeHordeJobSpec:
    """The spec with every ``pathlib.Path`` replaced by what is there. Reads in a thread.

    :raises ComputeHordeValidationError: ``field`` names the volume that cannot be sent.
    """
    volumes = spec.input_volumes
    if not isinstance(volumes, Mapping) or not any(isinstance(volume, Path) for volume in volumes.values()):
        return spec
    return replace(spec, input_volumes=await asyncio.to_thread(_read_all, volumes))


def _read_all(volumes: Mapping[str, InputVolume | Path]) -> dict[str, InputVolume | Path]:
    return {
        mount: _read(volume, f"input_volumes[{mount!r}]") if isinstance(volume, Path) else volume
        for mount, volume in volumes.items()
    }


def _read(path: Path, field: str) -> InlineInputVolume:
    try:
        return InlineInputVolume.from_path(path)
    except ComputeHordeValidationError as error:
        raise ComputeHordeValidationError(error.message, field=field, hint=error.hint) from None

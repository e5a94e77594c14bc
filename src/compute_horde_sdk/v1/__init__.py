"""The client library of Compute Horde: everything that a program imports."""

from compute_horde.protocol.enums import ExecutorClass
from compute_horde_sdk._internal.client import ComputeHordeClient
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeAuthenticationError,
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeJobError,
    ComputeHordeJobTimeoutError,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeTimeoutError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
    ComputeHordeValidatorNotConnectedError,
)
from compute_horde_sdk._internal.job import ComputeHordeJob
from compute_horde_sdk._internal.models import (
    ComputeHordeJobResult,
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    HttpOutputVolumeResponse,
)
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec
from compute_horde_sdk._internal.specs.volumes import (
    HTTPInputVolume,
    HTTPOutputVolume,
    HuggingfaceInputVolume,
    InlineInputVolume,
    InputVolume,
    OutputVolume,
)

__all__ = [
    "ComputeHordeAuthenticationError",
    "ComputeHordeClient",
    "ComputeHordeConnectionError",
    "ComputeHordeError",
    "ComputeHordeJob",
    "ComputeHordeJobError",
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
    "ExecutorClass",
    "HTTPInputVolume",
    "HTTPOutputVolume",
    "HttpOutputVolumeResponse",
    "HuggingfaceInputVolume",
    "InlineInputVolume",
    "InputVolume",
    "OutputVolume",
]

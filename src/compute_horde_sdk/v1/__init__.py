"""The client library of Compute Horde: everything that a program imports."""

from compute_horde.protocol.enums import ExecutorClass
from compute_horde_sdk._internal.client import ComputeHordeClient
from compute_horde_sdk._internal.crossvalidation.comparators import byte_exact, ignoring, numeric
from compute_horde_sdk._internal.crossvalidation.comparison import Comparator, Comparison, Difference
from compute_horde_sdk._internal.crossvalidation.evidence import (
    CrossValidationEvidence,
    FileHash,
    JobEvidence,
)
from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation
from compute_horde_sdk._internal.crossvalidation.verdict import CrossValidationReport, CrossValidationState
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeAuthenticationError,
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeHordeFailure,
    ComputeHordeJobError,
    ComputeHordeJobFailure,
    ComputeHordeJobRejection,
    ComputeHordeJobTimeoutError,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeTimeoutError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
    ComputeHordeValidatorNotConnectedError,
)
from compute_horde_sdk._internal.explanation import Explanation, MinerTrial
from compute_horde_sdk._internal.job import ComputeHordeJob
from compute_horde_sdk._internal.lines import LogLine
from compute_horde_sdk._internal.mapping import MappedJob
from compute_horde_sdk._internal.models import (
    ComputeHordeJobResult,
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    HttpOutputVolumeResponse,
    JobAttempt,
    QueuePlace,
)
from compute_horde_sdk._internal.s3 import s3_input_volume, s3_output_volume
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

"""The status ``cancelled``, and how peers of the existing network, which do not know it, are told."""

from collections.abc import Mapping

from pydantic import JsonValue

from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import JobStatus
from compute_horde.protocol.problems import Problem

CANCELLED_CODE = "cancelled"
"""The code, in the failure's context, that makes a ``failed`` job a cancelled one."""


def says_cancelled(context: Mapping[str, JsonValue] | None) -> bool:
    """Whether a failure's context tells of a cancelled job."""
    found = Problem.from_context(context, "")
    return found is not None and found.code == CANCELLED_CODE


def without_disguise(status: JobStatus, metadata: StatusMetadata | None) -> JobStatus:
    """The status behind one from a WebSocket: ``failed`` with our code is ``cancelled``."""
    details = metadata.job_failure_details if metadata else None
    if status is not JobStatus.FAILED or details is None:
        return status
    return JobStatus.CANCELLED if says_cancelled(details.context) else status


def disguised(status: JobStatus) -> JobStatus:
    """The status for a peer that did not announce ``cancel``."""
    return JobStatus.FAILED if status is JobStatus.CANCELLED else status

"""The capitalised ``status`` of the job object, for SDKs up to 0.0.10 (sections 2.7 and 2.12)."""

from collections.abc import Mapping
from types import MappingProxyType

from compute_horde.protocol.enums import JobStatus

LABELS: Mapping[JobStatus, str] = MappingProxyType(
    {
        JobStatus.SENT: "Sent",
        JobStatus.RECEIVED: "Received",
        JobStatus.QUEUED: "Received",
        JobStatus.ACCEPTED: "Accepted",
        JobStatus.EXECUTOR_READY: "Executor Ready",
        JobStatus.VOLUMES_READY: "Volumes Ready",
        JobStatus.STREAMING_READY: "Streaming Ready",
        JobStatus.EXECUTION_DONE: "Execution Done",
        JobStatus.COMPLETED: "Completed",
        JobStatus.REJECTED: "Rejected",
        JobStatus.FAILED: "Failed",
        JobStatus.HORDE_FAILED: "Failed",  # SDK 0.0.7 and 0.0.10 cannot parse a label of its own
        JobStatus.CANCELLED: "Failed",
        JobStatus.UNKNOWN: "Failed",
    }
)

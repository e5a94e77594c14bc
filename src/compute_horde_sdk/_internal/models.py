"""Status, history and result of a job, as the caller sees them."""

import datetime as dt
from dataclasses import dataclass, field
from enum import StrEnum

from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.uploads import UploadResponse

HttpOutputVolumeResponse = UploadResponse
"""What an upload target answered: ``headers`` and ``body``."""


class ComputeHordeJobStatus(StrEnum):
    """Where a job is. A word that this version does not know becomes ``UNKNOWN``, which counts as in progress."""

    SENT = "sent"
    RECEIVED = "received"
    ACCEPTED = "accepted"
    EXECUTOR_READY = "executor_ready"
    VOLUMES_READY = "volumes_ready"
    STREAMING_READY = "streaming_ready"
    EXECUTION_DONE = "execution_done"
    COMPLETED = "completed"
    REJECTED = "rejected"
    FAILED = "failed"
    HORDE_FAILED = "horde_failed"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> "ComputeHordeJobStatus | None":
        return cls.UNKNOWN if isinstance(value, str) else None

    @classmethod
    def end_states(cls) -> set["ComputeHordeJobStatus"]:
        """The statuses after which nothing more happens."""
        return {cls.COMPLETED, cls.REJECTED, cls.FAILED, cls.HORDE_FAILED}

    def is_in_progress(self) -> bool:
        """Whether more is to come."""
        return self not in self.end_states()

    def is_successful(self) -> bool:
        """Whether the job completed."""
        return self is self.COMPLETED

    def is_failed(self) -> bool:
        """Whether the job ended in any other way than completing."""
        return not self.is_in_progress() and not self.is_successful()

    def is_streaming_ready(self) -> bool:
        """Whether the job's streaming server can be reached now."""
        return self is self.STREAMING_READY


@dataclass(frozen=True)
class ComputeHordeJobStatusEntry:
    """One entry of a job's history. ``metadata``: what came with it (PROTOCOL.md 2.7); its members may be None."""

    status: ComputeHordeJobStatus
    created_at: dt.datetime
    metadata: StatusMetadata = field(default_factory=StatusMetadata)


@dataclass
class ComputeHordeJobResult:
    """What a finished job left; set for a failed job, too.

    * ``artifacts``: contents by path in the container
    * ``upload_results``: the upload targets' answers by ``/output/...`` path
    * ``exit_code``: the container's; None when it did not run to its end, or an older horde does not tell
    * ``timed_out``: the execution limit stopped the container; what it had written was kept
    * ``notices``: what was left out or cut, in sentences
    """

    stdout: str = ""
    stderr: str = ""
    artifacts: dict[str, bytes] = field(default_factory=dict)
    upload_results: dict[str, HttpOutputVolumeResponse] = field(default_factory=dict)
    exit_code: int | None = None
    timed_out: bool = False
    notices: list[str] = field(default_factory=list)

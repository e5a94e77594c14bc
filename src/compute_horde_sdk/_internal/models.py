"""Status, history and result of a job, as the caller sees them."""

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from compute_horde_sdk._internal.exceptions import ComputeHordeJobError
from compute_horde_sdk._internal.saving import save_files

if TYPE_CHECKING:  # only a type
    from compute_horde.protocol.details import StatusMetadata


@dataclass(frozen=True)
class HttpOutputVolumeResponse:
    """What an upload target answered."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


class ComputeHordeJobStatus(StrEnum):
    """Where a job is. A word that this version does not know becomes ``UNKNOWN``, which counts as in progress."""

    SENT = "sent"
    RECEIVED = "received"
    QUEUED = "queued"
    ACCEPTED = "accepted"
    EXECUTOR_READY = "executor_ready"
    VOLUMES_READY = "volumes_ready"
    STREAMING_READY = "streaming_ready"
    EXECUTION_DONE = "execution_done"
    COMPLETED = "completed"
    REJECTED = "rejected"
    FAILED = "failed"
    HORDE_FAILED = "horde_failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> "ComputeHordeJobStatus | None":
        return cls.UNKNOWN if isinstance(value, str) else None

    @classmethod
    def end_states(cls) -> set["ComputeHordeJobStatus"]:
        """The statuses after which nothing more happens."""
        return {cls.COMPLETED, cls.REJECTED, cls.FAILED, cls.HORDE_FAILED, cls.CANCELLED}

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
    """One entry of a job's history.

    * ``metadata``: what came with it (PROTOCOL.md 2.7); its members may be None
    * ``attempt``: which attempt it belongs to, from 1; with ``queued``, the one that is made next. None before the
      first, and where the facilitator does not tell
    * ``miner_hotkey``: who makes that attempt, 48 zeros for the trusted miner; None where nobody does yet
    * ``error``: why the job failed; with ``queued``, why the attempt before it did
    """

    created_at: dt.datetime
    status: ComputeHordeJobStatus
    metadata: "StatusMetadata | None" = field(default=None, repr=False)
    attempt: int | None = None
    miner_hotkey: str | None = None
    error: ComputeHordeJobError | None = field(default=None, compare=False)


@dataclass(frozen=True)
class QueuePlace:
    """Where a waiting job stands. None is what nobody can tell, or not yet.

    * ``position``: 1 is next
    * ``length``: how many jobs wait for the same kind of executor
    * ``starts_in``: seconds until it will probably begin, counted from when this was told
    """

    position: int | None = None
    length: int | None = None
    starts_in: float | None = None


@dataclass(frozen=True)
class JobAttempt:
    """One attempt at a job: a miner had accepted it.

    * ``number``: from 1
    * ``miner_hotkey``: who made it, 48 zeros for the trusted miner; None where the facilitator does not tell
    * ``outcome``: the status that it ended with; None while it is under way
    * ``error``: why it failed; None when it did not
    """

    number: int
    miner_hotkey: str | None = None
    outcome: ComputeHordeJobStatus | None = None
    error: ComputeHordeJobError | None = field(default=None, compare=False)


@dataclass(repr=False)
class ComputeHordeJobResult:
    """What a finished job left; set for a failed job, too.

    * ``artifacts``: contents by path in the container
    * ``upload_results``: the upload targets' answers by ``/output/...`` path
    * ``exit_code``: the container's; None when it did not run to its end, or an older horde does not tell
    * ``timed_out``: the execution limit stopped the container; what it had written was kept
    * ``notices``: what was left out or cut, in sentences
    * ``image_digest``: ``sha256:...`` of the image that ran; None where an older horde does not tell
    * ``output_hashes``: SHA-256 in hex of each file below ``/output``, by ``/output/...`` path; None where an
      older horde does not tell
    """

    stdout: str = ""
    stderr: str = ""
    artifacts: dict[str, bytes] = field(default_factory=dict)
    upload_results: dict[str, HttpOutputVolumeResponse] = field(default_factory=dict)
    exit_code: int | None = None
    timed_out: bool = False
    notices: list[str] = field(default_factory=list)
    image_digest: str | None = None
    output_hashes: dict[str, str] | None = None

    def add_upload_result(self, path: str, result: HttpOutputVolumeResponse) -> None:
        """Note an upload target's answer. ``path``: below ``/output/``, with or without that prefix."""
        self.upload_results["/output/" + path.removeprefix("/output/")] = result

    def save_artifacts(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write every artifact into ``directory``, which is made when it is not there.

        The file's name is the last part of the artifact's path, with characters that are no part of a name
        replaced by ``_``; of equal names the later ones get a number. Whoever ran the job chose these names:
        nothing is written outside ``directory``, and no link in it is followed.

        :param overwrite: replace files that are there; otherwise nothing is written when one is.
        :returns: the paths written, in the order of ``artifacts``.
        :raises ComputeHordeValidationError: a file of that name is there, or ``directory`` is none.
        :raises OSError: the disk refuses.
        """
        return save_files(self.artifacts, Path(directory), overwrite=overwrite)

    def __repr__(self) -> str:
        shown = {
            "exit_code": str(self.exit_code),
            "stdout": f"{len(self.stdout)} characters",
            "stderr": f"{len(self.stderr)} characters",
            "artifacts": f"{len(self.artifacts)} of {sum(map(len, self.artifacts.values()))} bytes",
            "upload_results": str(len(self.upload_results)),
        }
        flags = ", timed_out" if self.timed_out else ""
        flags += f", notices={self.notices!r}" if self.notices else ""
        return f"<ComputeHordeJobResult {', '.join(f'{name}={text}' for name, text in shown.items())}{flags}>"

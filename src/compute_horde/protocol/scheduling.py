"""Ours: how long a job may wait, how often it is tried, where it stands (extension ``queue``)."""

import uuid
from typing import Annotated

from pydantic import Field

from compute_horde.protocol.base import Message
from compute_horde.protocol.enums import ExecutorClass

MAX_QUEUE_SECONDS = 7 * 24 * 3600
MAX_ATTEMPTS = 10
MAX_BACKOFF_SECONDS = 3600
MAX_PRIORITY = 100
MAX_POSITIONS = 500
"""Jobs in one :class:`V0QueueUpdate`."""

QueueSeconds = Annotated[int, Field(ge=0, le=MAX_QUEUE_SECONDS, strict=True)]
Attempts = Annotated[int, Field(ge=1, le=MAX_ATTEMPTS, strict=True)]
BackoffSeconds = Annotated[float, Field(ge=0, le=MAX_BACKOFF_SECONDS, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY, strict=True)]


DEFAULT_ATTEMPTS = 3
DEFAULT_BACKOFF_SECONDS = 1.0


class Scheduling(Message):
    """A job's wishes. They are not signed: they change when a job runs, never what runs or who pays.

    * ``queue_time_limit``: seconds that it may wait for an executor in all; 0: end at once where none is free
    * ``attempts``: how often it is tried in all, where a failure is not its user's
    * ``retry_backoff``: seconds before the second attempt; they double with each further one
    * ``priority``: higher ones first

    None is the validator's own default.
    """

    queue_time_limit: QueueSeconds | None = None
    attempts: Attempts | None = None
    retry_backoff: BackoffSeconds | None = None
    priority: Priority = 0

    @property
    def is_default(self) -> bool:
        """Whether nothing is wished."""
        return self == Scheduling()


class AttemptDetails(Message):
    """Which attempt a status belongs to. ``miner_hotkey``: who got it, 48 zeros for the trusted miner.

    On ``queued`` it is the attempt that will be made next; the failure details beside it tell of the last one.
    """

    number: int = Field(ge=1, le=MAX_ATTEMPTS)
    of: int = Field(ge=1, le=MAX_ATTEMPTS)
    miner_hotkey: str | None = None


class QueuePlace(Message):
    """Where a waiting job stands.

    * ``position``: 1 is next; None: not known (yet)
    * ``length``: jobs that wait for the same kind of executor
    * ``starts_in_s``: when it will probably begin, in seconds from now; None: cannot be told
    """

    position: int | None = Field(default=None, ge=1)
    length: int | None = Field(default=None, ge=1)
    starts_in_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class QueueDetails(QueuePlace):
    """With the status ``queued``. ``time_limit_s``: seconds that are left to wait; ``reason``: one sentence."""

    time_limit_s: float = Field(ge=0, allow_inf_nan=False)
    reason: str = ""


class QueuedJob(QueuePlace):
    """One job's new place."""

    job_uuid: str


def attempt_uuid(job_uuid: str, number: int) -> str:
    """The name of an attempt towards its miner, so that each has receipts of its own: the first has the job's."""
    return job_uuid if number == 1 else str(uuid.uuid5(uuid.UUID(job_uuid), f"attempt:{number}"))


FreeExecutors = dict[ExecutorClass, Annotated[int, Field(ge=0)]]
"""Of each class that a miner offers, how many could begin a job now."""


def pause_before(attempt: int, first_s: float) -> float:
    """Seconds before an attempt, the second one or later, after the failure of the one before."""
    return float(min(first_s * 2 ** (attempt - 2), MAX_BACKOFF_SECONDS))

"""What the validator keeps, as values: a job, its receipts, its attempts, what miners answered."""

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from compute_horde.chain.port import MinerEndpoint
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.facilitator_validator import V2JobRequest
from compute_horde.protocol.scheduling import attempt_uuid
from compute_horde.validator.outcomes import Outcome

MAX_WORDS = 500


class StaleJob(RuntimeError):  # noqa: N818 - what the row is
    """The row is no longer as the writer had seen it, or is another process's now: its work is dropped."""


@dataclass(frozen=True)
class Job:
    """One row of ``jobs``.

    * ``miner``: set from just before the initial request is sent to it, until it declines or fails
    * ``attempt``: the one under way, or made next; ``not_before``: when, after a failure
    * ``queued_at``: since when it waits; None: it does not. ``queue_left_s``: seconds it may wait from then on;
      None: it has not waited yet
    * ``last_failure``: how the last attempt, or a miner that declined, left it
    """

    request: V2JobRequest
    state: JobState
    received_at: float
    miner: MinerEndpoint | None = None
    started_at: float | None = None
    deadline_at: float | None = None
    cheated: bool = False
    cancel_requested: bool = False
    attempt: int = 1
    not_before: float | None = None
    queued_at: float | None = None
    queue_left_s: float | None = None
    last_failure: Outcome | None = None
    ended_at: float | None = None

    @property
    def uuid(self) -> str:
        return self.request.uuid

    @property
    def name(self) -> str:
        """The current attempt's name towards its miner."""
        return attempt_uuid(self.uuid, self.attempt)

    @property
    def user(self) -> str:
        """Among whom executors are shared fairly."""
        return self.request.signature.signatory


@dataclass(frozen=True)
class IssuedReceipt:
    """A receipt of ours, as it was sent (section 9.3). ``job_uuid`` is the attempt's."""

    job_uuid: str
    kind: str
    payload: str
    signature: str


@dataclass(frozen=True)
class Incident:
    """A miner's fault."""

    miner_hotkey: str
    job_uuid: str
    code: str
    at: float


@dataclass(frozen=True)
class FailedAttempt:
    """An attempt that is followed by another one."""

    number: int
    miner_hotkey: str
    started_at: float | None
    ended_at: float
    code: str
    fault: str
    message: str


@dataclass(frozen=True)
class Trial:
    """The last of a miner's answers to a job; ``answer`` as in ``MinerTrial``."""

    miner_hotkey: str
    answer: str
    message: str
    tries: int
    last_at: float


class Admission(Enum):
    """What became of a job request."""

    NEW = "new"
    KNOWN = "known"
    REPLAYED = "replayed"


@dataclass(frozen=True)
class Change:
    """One transaction on a job: new values of its row, by field of :class:`Job`, and what is kept with them.

    ``frame``: the status that it means. ``anew``: receipts of this attempt's earlier offers are forgotten.
    """

    values: dict[str, Any] = field(default_factory=dict)
    frame: str | None = None
    receipt: IssuedReceipt | None = None
    anew: bool = False
    incident: Incident | None = None
    failed: FailedAttempt | None = None
    trials: tuple[Trial, ...] = ()


def words(text: str) -> str:
    """A stranger's text as every database takes it."""
    return text.replace("\x00", "")[:MAX_WORDS]


def columns_of(values: dict[str, Any]) -> dict[str, Any]:
    """The columns of some fields of :class:`Job`."""
    found = dict(values)
    if "miner" in found:
        miner = found.pop("miner")
        found |= {f"miner_{key}": getattr(miner, key, None) for key in ("hotkey", "address", "port")}
    if "last_failure" in found:
        failure: Outcome | None = found["last_failure"]
        found["last_failure"] = json.dumps(failure.to_json()) if failure else None
    if "state" in found:
        found["state"] = JobState(found["state"]).value
    return found


def job_of(row: Any) -> Job:
    """The job of a row."""
    miner = None
    if row.miner_hotkey is not None:
        miner = MinerEndpoint(hotkey=row.miner_hotkey, address=row.miner_address, port=row.miner_port)
    return Job(
        request=V2JobRequest.model_validate_json(row.request),
        state=JobState(row.state),
        received_at=row.received_at,
        miner=miner,
        started_at=row.started_at,
        deadline_at=row.deadline_at,
        cheated=row.cheated,
        cancel_requested=row.cancel_requested,
        attempt=row.attempt,
        not_before=row.not_before,
        queued_at=row.queued_at,
        queue_left_s=row.queue_left_s,
        last_failure=Outcome.from_json(json.loads(row.last_failure)) if row.last_failure else None,
        ended_at=row.ended_at,
    )

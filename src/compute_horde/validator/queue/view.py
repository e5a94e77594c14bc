"""What is known of a job when somebody asks why it has not started. Plain facts; times are UNIX seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.scheduling import QueuePlace


class Answer(StrEnum):
    """What a miner answered; those of :class:`compute_horde.protocol.explanation.MinerTrial`."""

    NOT_TRIED = "not_tried"
    BUSY = "busy"
    UNREACHABLE = "unreachable"
    CLASS_NOT_OFFERED = "class_not_offered"
    DECLINED = "declined"
    SILENT = "silent"
    ACCEPTED = "accepted"
    FAILED = "failed"
    EXCLUDED = "excluded"


@dataclass(frozen=True)
class Trial:
    """What one miner was asked for this job, and its last answer.

    ``message`` and ``hint``: the miner's own words, where it gave any. ``tries``: how often it was asked.
    """

    miner_hotkey: str
    answer: Answer
    message: str = ""
    hint: str = ""
    tries: int = 1
    last_at: float | None = None


@dataclass(frozen=True)
class KnownMiner:
    """A miner that may be asked.

    * ``offers``: its executors by class, busy ones included; None: it has not said yet
    * ``free``: its executors of the job's class that are presumed free; None: not known
    * ``away_since``: since when it cannot be reached; None: it can, or nobody has tried
    * ``asked_again_in_s``: the pause that is kept towards it
    """

    hotkey: str
    offers: Mapping[ExecutorClass, int] | None = None
    free: int | None = None
    away_since: float | None = None
    asked_again_in_s: float | None = None


@dataclass(frozen=True)
class FailedAttempt:
    """An attempt that is over. ``code``: that of its problem."""

    number: int
    miner_hotkey: str
    code: str
    message: str
    at: float | None = None


@dataclass(frozen=True)
class View:
    """One job.

    * ``attempt`` of ``attempts``: the one under way or made next
    * ``is_confirmed``: the facilitator has confirmed that this validator has the job; until then no miner is asked
    * ``retry_in_s``: the pause before the next attempt that is left
    * ``place``, ``queue_left_s``: its place in the queue, and how long it may still wait
    * ``miners``: all that may be asked (the trusted miner alone where the job wishes it; none: not configured)
    * ``miner``: who has the attempt under way; ``miner_away_since``: since when the connection to it is lost
    * ``ending``: why it ended without success, where there is more to say than the state
    """

    job_uuid: str
    state: JobState
    executor_class: ExecutorClass
    attempt: int = 1
    attempts: int = 1
    on_trusted_miner: bool = False
    cancel_wished: bool = False
    is_confirmed: bool = True
    retry_in_s: float = 0.0
    place: QueuePlace | None = None
    queue_left_s: float | None = None
    miners: Sequence[KnownMiner] = ()
    trials: Sequence[Trial] = ()
    failed: Sequence[FailedAttempt] = ()
    miner: str | None = None
    miner_away_since: float | None = None
    ending: Problem | None = None

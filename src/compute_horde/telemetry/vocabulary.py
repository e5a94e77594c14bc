"""The closed sets of words that metrics are labelled with: never a hotkey, a uuid, an address or a peer's text."""

from enum import StrEnum

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.enums import ExecutorClass, Fault, Stage

OTHER = "other"
"""Stands for a value that is not in the set."""

NO_FAULT = "none"

DURATION_BUCKETS = (
    *(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900),
    *(3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600, 168 * 3600),
)
"""Seconds: from a no-op's stage to a job of a week."""


class Refusal(StrEnum):
    """Why something that a peer sent was not acted upon."""

    MALFORMED = "malformed"
    SIGNATURE = "signature"
    STALE = "stale"  # signed too long ago
    REPEATED = "repeated"  # seen before; harmless
    FORBIDDEN = "forbidden"  # the chain does not list the peer
    LOGIN = "login"
    UNKNOWN_JOB = "unknown_job"
    ILLEGAL_TRANSITION = "illegal_transition"
    NOT_OURS = "not_ours"  # a job of another instance or peer
    STALE_CLAIM = "stale_claim"  # the lease went to another owner while the work was done
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    OTHER = OTHER


class Peer(StrEnum):
    """What a link leads to."""

    FACILITATOR = "facilitator"
    VALIDATOR = "validator"
    MINER = "miner"
    EXECUTOR = "executor"
    DATABASE = "database"


class TryOutcome(StrEnum):
    """What came of offering a job to a miner."""

    ACCEPTED = "accepted"
    BUSY = "busy"
    DECLINED = "declined"
    UNREACHABLE = "unreachable"
    SILENT = "silent"


class ExecutorState(StrEnum):
    """What a place for one executor is used for."""

    FREE = "free"
    RESERVED = "reserved"
    TIDYING = "tidying"  # its job is over, its executor not yet gone


class Adoption(StrEnum):
    """What an executor found when it took over the job of one that died."""

    STANDBY = "standby"  # the other lived on and finished
    RESUMED = "resumed"  # the stage was done anew
    TAKEN_OVER = "taken_over"  # the container was there
    LOST = "lost"  # the container was gone


class Direction(StrEnum):
    """Which way a transfer goes, seen from the executor."""

    DOWN = "down"
    UP = "up"


STATES = frozenset(state.value for state in JobState)
CLASSES = frozenset(known.value for known in ExecutorClass)
FAULTS = frozenset(fault.value for fault in Fault) | {NO_FAULT}
EXECUTOR_STATES = frozenset(state.value for state in ExecutorState)

_STAGE_BEFORE_EXECUTORS = {
    JobState.SENT: "hand_over",
    JobState.RECEIVED: "routing",
    JobState.QUEUED: "queue",
}


def stage_between(left: JobState, to: JobState) -> str:
    """The name of the stage that a job was in from the state ``left`` until it came to ``to``."""
    match left:
        case JobState.ACCEPTED:
            return Stage.EXECUTOR_STARTUP.value
        case JobState.EXECUTOR_READY:
            return Stage.VOLUME_DOWNLOAD.value
        case JobState.VOLUMES_READY if to is JobState.STREAMING_READY:
            return Stage.STREAMING_STARTUP.value
        case JobState.VOLUMES_READY | JobState.STREAMING_READY:
            return Stage.EXECUTION.value
        case JobState.EXECUTION_DONE:
            return Stage.RESULT_UPLOAD.value
        case _:
            return _STAGE_BEFORE_EXECUTORS.get(left, OTHER)


def bounded(value: str, known: frozenset[str]) -> str:
    """``value`` if the set has it, so that no label grows without end."""
    return value if value in known else OTHER

"""The job's state machine, as data. Facilitator, validator, miner and executor read the same table."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from compute_horde.protocol.enums import JobStatus, Participant
from compute_horde.protocol.scheduling import MAX_ATTEMPTS


class JobState(StrEnum):
    """The wire's states, and ours: ``queued`` and ``cancelled``, which older peers never see.

    A job is ``received``, perhaps ``queued``, and then goes through the stages of an attempt. A failure that is
    not its user's may bring it back to ``queued``, for the next attempt (:func:`transition_in_attempt`).
    """

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

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


PROGRESS = (
    JobState.SENT,
    JobState.RECEIVED,
    JobState.QUEUED,
    JobState.ACCEPTED,
    JobState.EXECUTOR_READY,
    JobState.VOLUMES_READY,
    JobState.STREAMING_READY,
    JobState.EXECUTION_DONE,
)
"""States of a job under way, in order."""

TERMINAL = frozenset(
    {JobState.COMPLETED, JobState.REJECTED, JobState.FAILED, JobState.HORDE_FAILED, JobState.CANCELLED}
)

_BY_VALIDATOR = frozenset({Participant.VALIDATOR, Participant.MINER, Participant.EXECUTOR})
_BY_ANY_SERVICE = _BY_VALIDATOR | {Participant.FACILITATOR}

ACTORS: Mapping[JobState, frozenset[Participant]] = MappingProxyType(
    {
        JobState.SENT: frozenset({Participant.FACILITATOR}),
        JobState.RECEIVED: frozenset({Participant.VALIDATOR}),
        JobState.QUEUED: frozenset({Participant.VALIDATOR}),
        JobState.ACCEPTED: _BY_VALIDATOR,
        JobState.EXECUTOR_READY: _BY_VALIDATOR,
        JobState.VOLUMES_READY: _BY_VALIDATOR,
        JobState.STREAMING_READY: _BY_VALIDATOR,
        JobState.EXECUTION_DONE: _BY_VALIDATOR,
        JobState.COMPLETED: _BY_VALIDATOR,
        JobState.REJECTED: _BY_VALIDATOR,
        JobState.FAILED: _BY_VALIDATOR,
        JobState.HORDE_FAILED: _BY_ANY_SERVICE,
        JobState.CANCELLED: _BY_ANY_SERVICE | {Participant.SDK},
    }
)
"""Who may bring a job into each state."""


class IllegalTransition(ValueError):  # noqa: N818 - the domain's word
    """An event that the table does not allow: it is logged and dropped, never stored."""


def transition(state: JobState, to: JobState, by: Participant) -> JobState:
    """The state after ``to`` was reported by ``by``.

    Forward only. A state may be skipped, since a peer of the existing network may lose a status; it then stays
    skipped. Every state under way may end in any terminal one.

    :raises IllegalTransition: backwards, repeated, after the end, or not this participant's to report.
    """
    if by not in ACTORS[to]:
        raise IllegalTransition(f"{by.value} may not report {to.value}")
    if state.is_terminal:
        raise IllegalTransition(f"the job has already ended as {state.value}; {to.value} came too late")
    if to.is_terminal:
        return to
    if PROGRESS.index(to) <= PROGRESS.index(state):
        raise IllegalTransition(f"{to.value} does not follow {state.value}")
    return to


def transition_in_attempt(
    state: JobState, attempt: int, to: JobState, of_attempt: int, by: Participant
) -> tuple[JobState, int]:
    """The state and the attempt after ``to`` was reported of attempt ``of_attempt``; the first one is 1.

    A later attempt begins anew behind ``received``, with ``queued`` unless that was lost; only the validator
    begins one. What is reported of an earlier attempt comes too late.

    :raises IllegalTransition: as :func:`transition` does, and for an attempt that is over or that cannot begin.
    """
    if of_attempt == attempt:
        return transition(state, to, by), attempt
    if of_attempt < attempt:
        raise IllegalTransition(f"attempt {of_attempt} is over; {to.value} came too late")
    if by not in _BY_VALIDATOR or of_attempt > MAX_ATTEMPTS:
        raise IllegalTransition(f"{by.value} may not begin attempt {of_attempt}")
    if state is JobState.SENT:
        raise IllegalTransition(f"attempt {of_attempt} of a job that nobody has received")
    return transition(state if state.is_terminal else JobState.RECEIVED, to, by), of_attempt


def from_wire(status: JobStatus) -> JobState | None:
    """The state behind a wire status; None for ``unknown``, which is never stored (G15)."""
    return None if status is JobStatus.UNKNOWN else JobState(status.value)


def to_wire(state: JobState) -> JobStatus:
    """What WebSockets carry: a cancelled job is one that failed; ``queued`` is for peers that announced it."""
    return JobStatus.FAILED if state is JobState.CANCELLED else JobStatus(state.value)

"""When a job that is under way is given up (G10). Pure.

A job has its budget, from when its validator first takes it up, and anew when it leaves the queue or an attempt
begins; while it waits, what is left of its waiting is added. No report moves that beyond ``latest``, so a
validator that always has something new to tell makes no job immortal.
"""

from dataclasses import dataclass

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.scheduling import (
    MAX_ATTEMPTS,
    MAX_BACKOFF_SECONDS,
    MAX_QUEUE_SECONDS,
    Scheduling,
    pause_before,
)

UNKNOWN_BACKOFF_SECONDS = 60.0
"""Allowed for before a second attempt where the validator's own setting counts, which is not known here."""


@dataclass(frozen=True)
class Wishes:
    """What bounds a job's time. None: the validator's own setting."""

    budget_s: float
    queue_limit_s: float | None = None
    retry_backoff_s: float | None = None

    def waiting(self, told_s: float | None) -> float:
        """How long a job may wait whose validator says that so much is left."""
        most = MAX_QUEUE_SECONDS if self.queue_limit_s is None else self.queue_limit_s
        return most if told_s is None else min(told_s, most)

    def pause(self, attempt: int) -> float:
        """Before this attempt."""
        first = UNKNOWN_BACKOFF_SECONDS if self.retry_backoff_s is None else self.retry_backoff_s
        return pause_before(attempt, first) if attempt > 1 else 0.0


@dataclass(frozen=True)
class Standing:
    """A job before a report. Moments are UNIX seconds; ``deadline`` is None once it has ended."""

    state: JobState
    attempt: int
    deadline: float | None
    latest: float
    wishes: Wishes
    cancel_requested: bool = False


def latest_end(created: float, budget_s: float, wishes: Scheduling) -> float:
    """When a job has ended for certain: not taken up, then waited, then tried as often as it may be."""
    tries = wishes.attempts or MAX_ATTEMPTS
    backoff = MAX_BACKOFF_SECONDS if wishes.retry_backoff is None else wishes.retry_backoff
    pauses = sum(pause_before(attempt, backoff) for attempt in range(2, tries + 1))
    waiting = MAX_QUEUE_SECONDS if wishes.queue_time_limit is None else wishes.queue_time_limit
    return created + budget_s + waiting + tries * budget_s + pauses


def deadline_after(
    job: Standing, to: JobState, attempt: int, queue_left_s: float | None, now: float
) -> float | None:
    """The deadline once ``to`` was reported of ``attempt``. A job that is being cancelled gets no more time."""
    if to.is_terminal:
        return None
    if job.cancel_requested:
        return job.deadline
    budget = job.wishes.budget_s
    if to is JobState.QUEUED:
        wanted = now + job.wishes.waiting(queue_left_s) + job.wishes.pause(attempt) + budget
    elif attempt > job.attempt or job.state in (JobState.SENT, JobState.QUEUED):
        wanted = now + budget
    else:
        return job.deadline
    return min(wanted, job.latest)

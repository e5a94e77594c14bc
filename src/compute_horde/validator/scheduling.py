"""What a job wishes about waiting and attempts, within what the operator allows. Pure."""

from dataclasses import dataclass

from compute_horde.protocol.facilitator_validator import V2JobRequest
from compute_horde.protocol.scheduling import MAX_ATTEMPTS, Scheduling, pause_before
from compute_horde.validator.settings import ValidatorSettings


@dataclass(frozen=True)
class Terms:
    """Seconds, and attempts in all. ``queue_s`` 0: the job ends at once where no executor is free."""

    queue_s: float
    attempts: int
    backoff_s: float
    priority: int

    def pause_before(self, attempt: int) -> float:
        """Seconds before this attempt, the second or a later one."""
        return pause_before(attempt, self.backoff_s)


def terms_of(request: V2JobRequest, settings: ValidatorSettings) -> Terms:
    """The job's wishes, else the settings'."""
    wished = request.scheduling or Scheduling()
    queue_s = settings.queue_time_limit if wished.queue_time_limit is None else wished.queue_time_limit
    backoff_s = settings.retry_backoff if wished.retry_backoff is None else wished.retry_backoff
    return Terms(
        queue_s=min(queue_s, settings.max_queue_time),
        attempts=min(wished.attempts or settings.attempts, MAX_ATTEMPTS),
        backoff_s=backoff_s,
        priority=wished.priority,
    )

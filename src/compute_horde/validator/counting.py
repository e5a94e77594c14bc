"""What the validator's metrics are told of its jobs. Nothing here asks the database."""

from collections.abc import Callable

from compute_horde.lifecycle.clock import elapsed
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.enums import Fault
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.validator.outcomes import Outcome
from compute_horde.validator.rows import Job


def fault_of(outcome: Outcome) -> Fault | None:
    """Whose doing a failure was: ``nobody`` where an older peer does not say; None: there was none."""
    if outcome.state is JobState.COMPLETED:
        return None
    return outcome.problem.fault if outcome.problem else Fault.NOBODY


class Counting:
    """Ends, and how long jobs are in their states, as far as this process has seen them come to these."""

    def __init__(self, metrics: ValidatorMetrics, clock: Callable[[], float] = elapsed) -> None:
        self._metrics, self._clock = metrics, clock
        self._since: dict[str, float] = {}

    def admitted(self, job: Job) -> None:
        """A job that was let in."""
        self._since[job.uuid] = self._clock()

    def moved(self, before: Job, after: Job) -> None:
        """A job went on; one that stays in its state is not looked at."""
        if before.state is after.state:
            return
        now, since = self._clock(), self._since.pop(before.uuid, None)
        if since is not None:
            self._metrics.stage(before.state, after.state, after.request.executor_class, now - since)
        if not after.state.is_terminal:
            self._since[after.uuid] = now

    def forget(self, job_uuid: str) -> None:
        """The job is not driven here any more."""
        self._since.pop(job_uuid, None)

    def turned_away(self, outcome: Outcome) -> None:
        """A request that was not let in, which is an end of its own."""
        self._metrics.ended(outcome.state, fault_of(outcome), 0.0)

    def ended(self, job: Job, outcome: Outcome) -> None:
        seconds = (job.ended_at or job.received_at) - job.received_at
        self._metrics.ended(job.state, fault_of(outcome), max(0.0, seconds))

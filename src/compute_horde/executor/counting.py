"""What the metrics are told of one job. Most executors have none: their process ends with its only job."""

from typing import TYPE_CHECKING

from compute_horde.executor.state import State
from compute_horde.executor.timing import Clocks
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.base import Message
from compute_horde.protocol.compat.cancelled import says_cancelled
from compute_horde.protocol.enums import ExecutorClass, Fault, Stage
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.validator_miner import V0HordeFailedRequest, V0JobFailedRequest
from compute_horde.telemetry.vocabulary import Adoption, Direction, Peer, Refusal

if TYPE_CHECKING:  # nobody looks at most executors, which start faster without the library
    from compute_horde.telemetry.executor import ExecutorMetrics


class Counting:
    """One job, as far as this process sees it. ``metrics`` None: nobody looks."""

    def __init__(self, metrics: "ExecutorMetrics | None" = None, clocks: Clocks | None = None) -> None:
        self._metrics, self._clocks = metrics, clocks or Clocks()
        self._class = ExecutorClass.always_on__test
        self._stage = Stage.EXECUTOR_STARTUP
        self._since: float | None = self._clocks.elapsed()

    def took_over(self, found: State) -> None:
        """The job of a dead executor. How long it was in its stage then is not known here."""
        self._since = None
        if found.begun is None or found.over:
            self.adopted(Adoption.RESUMED)  # else it is counted when its container has been looked for

    def adopted(self, outcome: Adoption) -> None:
        if self._metrics is not None:
            self._metrics.adopted(outcome)

    def of_class(self, executor_class: ExecutorClass) -> None:
        """The miner has said what job it is."""
        self._class = executor_class

    def entered(self, stage: Stage, *, anew: bool) -> None:
        """A stage begins, and the one before is done. Not ``anew``: an earlier executor was in it already."""
        self._done()
        self._stage, self._since = stage, self._clocks.elapsed() if anew else None

    def ended(self, last: Message) -> None:
        """The job has its last message."""
        state, fault = _ended_as(last)
        if state is JobState.COMPLETED:
            self._done()
        if self._metrics is not None:
            self._metrics.job_ended(state, fault)

    def downloaded(self, size: int) -> None:
        """``size`` in bytes."""
        if self._metrics is not None:
            self._metrics.transferred(Direction.DOWN, size)

    def uploaded(self, size: int) -> None:
        """``size`` in bytes."""
        if self._metrics is not None:
            self._metrics.transferred(Direction.UP, size)

    def reconnected(self) -> None:
        """The miner was lost and is back."""
        if self._metrics is not None:
            self._metrics.reconnected(Peer.MINER)

    def refused(self, reason: Refusal) -> None:
        """Something that the miner sent was not acted upon."""
        if self._metrics is not None:
            self._metrics.refused(reason)

    def _done(self) -> None:
        if self._metrics is not None and self._since is not None:
            self._metrics.stage_done(self._stage, self._class, self._clocks.elapsed() - self._since)


def _ended_as(last: Message) -> tuple[JobState, Fault | None]:
    if not isinstance(last, V0JobFailedRequest | V0HordeFailedRequest):
        return JobState.COMPLETED, None
    found = Problem.from_context(last.context, "")
    fault = found.fault if found is not None else Fault.NOBODY
    if isinstance(last, V0HordeFailedRequest):
        return JobState.HORDE_FAILED, fault
    return JobState.CANCELLED if says_cancelled(last.context) else JobState.FAILED, fault

"""The executor's metrics."""

import time
from collections.abc import Callable

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.enums import ExecutorClass, Fault, Stage
from compute_horde.telemetry.metrics import ServiceMetrics, fault_word
from compute_horde.telemetry.sampled import Read
from compute_horde.telemetry.vocabulary import Adoption, Direction


class ExecutorMetrics(ServiceMetrics):
    """One executor. A process that ends with its only job is better watched at its miner."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("executor", clock=clock)
        self._stages = self.durations("stage_duration_seconds", "Time in a stage.", "stage", "executor_class")
        self._jobs = self.counter("jobs_ended", "Jobs that came to their end.", "state", "fault")
        self._adoptions = self.counter("adoptions", "Jobs of dead executors that were taken up.", "outcome")
        self._bytes = self.counter("transferred_bytes", "Inputs fetched and outputs uploaded.", "direction")

    def sample_disk_free(self, read: Read) -> None:
        self.sample("disk_free_bytes", "Free space where the folders of jobs are.", {}, read)

    def stage_done(self, stage: Stage, executor_class: ExecutorClass, seconds: float) -> None:
        self._stages.labels(stage.value, executor_class.value).observe(seconds)

    def job_ended(self, state: JobState, fault: Fault | None = None) -> None:
        self._jobs.labels(state.value, fault_word(fault)).inc()

    def adopted(self, outcome: Adoption) -> None:
        self._adoptions.labels(outcome.value).inc()

    def transferred(self, direction: Direction, size: int) -> None:
        """``size`` in bytes."""
        self._bytes.labels(direction.value).inc(size)

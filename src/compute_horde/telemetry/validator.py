"""The validator's metrics."""

import time
from collections.abc import Callable

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.enums import Fault
from compute_horde.telemetry.metrics import JobMetrics, fault_word
from compute_horde.telemetry.sampled import Read
from compute_horde.telemetry.vocabulary import CLASSES, TryOutcome


class ValidatorMetrics(JobMetrics):
    """One validator process."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("validator", clock=clock)
        self._tries = self.counter("tries", "Jobs offered to a miner.", "outcome")
        self._attempts = self.counter("attempts", "Attempts that a miner had accepted.", "outcome", "fault")

    def sample_queue(self, read: Read) -> None:
        """``{(executor class,): jobs}``"""
        self.sample("queued_jobs", "Jobs that wait for an executor.", {"executor_class": CLASSES}, read)

    def sample_queue_age(self, read: Read) -> None:
        """``{(executor class,): seconds}``"""
        text = "How long the oldest waiting job has waited."
        self.sample("queue_age_seconds", text, {"executor_class": CLASSES}, read)

    def sample_outbox(self, read: Read) -> None:
        self.sample("outbox_messages", "Messages that the facilitator has not acknowledged.", {}, read)

    def sample_connected(self, read: Read) -> None:
        self.sample("facilitator_connected", "1 while the facilitator has let this validator in.", {}, read)

    def tried(self, outcome: TryOutcome) -> None:
        """A miner was offered a job."""
        self._tries.labels(outcome.value).inc()

    def attempt_ended(self, outcome: JobState, fault: Fault | None = None) -> None:
        """An attempt that a miner had accepted is over; the job may go on with another."""
        self._attempts.labels(outcome.value, fault_word(fault)).inc()

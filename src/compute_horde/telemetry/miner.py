"""The miner's metrics."""

import time
from collections.abc import Callable

from compute_horde.telemetry.metrics import JobMetrics
from compute_horde.telemetry.sampled import Read
from compute_horde.telemetry.vocabulary import CLASSES, EXECUTOR_STATES, TryOutcome


class MinerMetrics(JobMetrics):
    """One miner process."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("miner", clock=clock)
        self._offers = self.counter("offers", "Jobs offered by validators.", "outcome")
        self._relaunched = self.counter("executors_relaunched", "Executors started again for a job under way.")
        self._lost = self.counter("executors_lost", "Jobs given up because their executor was gone.")

    def sample_executors(self, read: Read) -> None:
        """``{(executor class, executor state): places}``"""
        labels = {"executor_class": CLASSES, "state": EXECUTOR_STATES}
        self.sample("executors", "Places for executors, by what they are used for.", labels, read)

    def sample_outbox(self, read: Read) -> None:
        self.sample("outbox_messages", "Messages of jobs that no validator has acknowledged.", {}, read)

    def sample_validators(self, read: Read) -> None:
        self.sample("validators", "Validators connected.", {}, read)

    def offered(self, outcome: TryOutcome) -> None:
        """A validator's offer was answered."""
        self._offers.labels(outcome.value).inc()

    def executor_relaunched(self) -> None:
        self._relaunched.inc()

    def executor_lost(self) -> None:
        self._lost.inc()

"""The facilitator's metrics."""

import time
from collections.abc import Callable

from compute_horde.telemetry.metrics import JobMetrics
from compute_horde.telemetry.sampled import Read


class FacilitatorMetrics(JobMetrics):
    """One facilitator process; replicas on one database all tell the same of its jobs."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("facilitator", clock=clock)
        self._logins = self.counter("logins", "Attempts to log in.", "outcome")

    def sample_undelivered_age(self, read: Read) -> None:
        self.sample("undelivered_age_seconds", "Age of the oldest job that no validator has taken.", {}, read)

    def sample_validators(self, read: Read) -> None:
        self.sample("validators", "Validators connected to this process.", {}, read)

    def sample_streams(self, read: Read) -> None:
        self.sample("event_streams", "Clients that follow their jobs at this process.", {}, read)

    def login(self, ok: bool) -> None:
        self._logins.labels("ok" if ok else "refused").inc()

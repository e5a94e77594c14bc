"""What the metrics of all services have in common."""

import asyncio
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.enums import ExecutorClass, Fault
from compute_horde.telemetry.sampled import Read, Sampled
from compute_horde.telemetry.vocabulary import (
    DURATION_BUCKETS,
    NO_FAULT,
    STATES,
    Peer,
    Refusal,
    stage_between,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SAMPLE_LIMIT_S = 2.0
FRESH_S = 1.0
"""Figures that are read from the database are good for so long, however many ask."""

# a second time series beside each counter and histogram, with the moment it was made: nobody asked for it
disable_created_metrics()  # type: ignore[no-untyped-call] # the library left its types out


class ServiceMetrics:
    """One registry for one instance of a service, however many share a process.

    Names are ``compute_horde_<service>_<what>_<unit>``. Calls cost microseconds.
    """

    def __init__(self, service: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self._prefix = f"compute_horde_{service}_"
        self._clock, self._turn = clock, asyncio.Lock()
        self._sampled: list[Sampled] = []
        self._sampled_at = float("-inf")
        ProcessCollector(registry=self.registry)
        self.gauge("build_info", "Always 1; the label tells the version.", "version").labels(
            version("compute-horde")
        ).set(1)
        self._sample_errors = self.counter("sample_errors", "Figures that could not be read.", "metric")
        self._refused = self.counter("events_refused", "Messages and requests not acted upon.", "reason")
        self._reconnects = self.counter("reconnects", "Links that came back after they were lost.", "peer")

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Its name gets ``_total`` at its end."""
        return Counter(self._prefix + name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._prefix + name, text, labels, registry=self.registry)

    def durations(self, name: str, text: str, *labels: str) -> Histogram:
        """Seconds, up to days."""
        return Histogram(self._prefix + name, text, labels, registry=self.registry, buckets=DURATION_BUCKETS)

    def sample(self, name: str, text: str, labels: Mapping[str, frozenset[str]], read: Read) -> None:
        """A gauge whose figures ``read`` tells each time somebody looks."""
        sampled = Sampled(self._prefix + name, text, labels, read)
        self.registry.register(sampled)
        self._sampled.append(sampled)

    def refused(self, reason: Refusal) -> None:
        self._refused.labels(reason.value).inc()

    def reconnected(self, peer: Peer) -> None:
        self._reconnects.labels(peer.value).inc()

    async def render(self) -> bytes:
        """Everything in Prometheus's text format, of :data:`CONTENT_TYPE`."""
        async with self._turn:
            if self._clock() - self._sampled_at >= FRESH_S:
                await self._refresh()
                self._sampled_at = self._clock()
        return generate_latest(self.registry)

    async def _refresh(self) -> None:
        done = await asyncio.gather(*(sampled.refresh(SAMPLE_LIMIT_S) for sampled in self._sampled))
        for sampled, well in zip(self._sampled, done, strict=True):
            if not well:
                self._sample_errors.labels(sampled.name).inc()


class JobMetrics(ServiceMetrics):
    """Of the services that keep jobs in a database."""

    def __init__(self, service: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(service, clock=clock)
        self._stages = self.durations("stage_duration_seconds", "Time in a stage.", "stage", "executor_class")
        self._job_seconds = self.durations("job_duration_seconds", "From creation to the end.", "state")
        self._ended = self.counter("jobs_ended", "Jobs that came to their end.", "state", "fault")
        self._taken_over = self.counter("leases_taken_over", "Rows claimed from an owner that was gone.")

    def sample_jobs(self, read: Read) -> None:
        """``{(state,): jobs}``"""
        self.sample("jobs", "Jobs in the database.", {"state": STATES}, read)

    def sample_database_bytes(self, read: Read) -> None:
        self.sample("database_bytes", "Size of the database.", {}, read)

    def stage(self, left: JobState, to: JobState, executor_class: ExecutorClass, seconds: float) -> None:
        """A job was in the state ``left`` for so long, and came to ``to``."""
        self._stages.labels(stage_between(left, to), executor_class.value).observe(seconds)

    def ended(self, state: JobState, fault: Fault | None = None, seconds: float | None = None) -> None:
        """``seconds``: since the job was created, where that is known."""
        self._ended.labels(state.value, fault_word(fault)).inc()
        if seconds is not None:
            self._job_seconds.labels(state.value).observe(seconds)

    def lease_taken_over(self, rows: int = 1) -> None:
        self._taken_over.inc(rows)


def fault_word(fault: Fault | None) -> str:
    return fault.value if fault else NO_FAULT

"""Where each waiting job stands now, and when it will probably begin."""

from collections.abc import Sequence

from compute_horde.lifecycle.clock import elapsed
from compute_horde.protocol.scheduling import QueuedJob
from compute_horde.validator.live import LiveJobs
from compute_horde.validator.matcher import Matcher, Pool, pool_of
from compute_horde.validator.queue.estimate import RunTimes, starts_in
from compute_horde.validator.requests import limits_of
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.supply import Supply


class PlacesNow:
    """Computed when asked for."""

    def __init__(
        self, settings: ValidatorSettings, matcher: Matcher, supply: Supply, run_times: RunTimes, live: LiveJobs
    ) -> None:
        self._settings, self._matcher, self._supply = settings, matcher, supply
        self._run_times, self._live = run_times, live

    def all(self) -> Sequence[QueuedJob]:
        """Every waiting job."""
        return [job for pool, order in self._matcher.waiting() for job in self._pool(pool, order)]

    def of(self, job_uuid: str) -> QueuedJob | None:
        """One of them."""
        for pool, order in self._matcher.waiting():
            if job_uuid in order:
                return next(job for job in self._pool(pool, order) if job.job_uuid == job_uuid)
        return None

    def _pool(self, pool: Pool, order: Sequence[str]) -> Sequence[QueuedJob]:
        slots = sum(self._supply.slots(m.hotkey, pool.executor_class) for m in self._matcher.miners_of(pool))
        driver = self._live.driver(order[0])
        limit = limits_of(driver.job.request, self._settings).cost if driver else 0.0
        expected = self._run_times.expected(pool.executor_class, limit)
        starts = starts_in(order, slots, self._running_left(pool, expected), expected)
        return [
            QueuedJob(job_uuid=name, position=number, length=len(order), starts_in_s=starts[name])
            for number, name in enumerate(order, 1)
        ]

    def _running_left(self, pool: Pool, expected_s: float) -> Sequence[float]:
        """Seconds that each job at work probably still needs."""
        since = [d.at_work_since for d in self._live.drivers() if pool_of(d.job) == pool]
        return [max(0.0, expected_s - (elapsed() - at)) for at in since if at is not None]

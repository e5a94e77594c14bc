"""What metrics read of the validator when somebody looks."""

import time
from collections import Counter
from collections.abc import Mapping

from sqlalchemy import func, select

from compute_horde.storage.database import Database
from compute_horde.storage.retention import database_bytes
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.validator.facilitator_link import FacilitatorLink
from compute_horde.validator.live import LiveJobs
from compute_horde.validator.matcher import Matcher
from compute_horde.validator.outbox import Outbox
from compute_horde.validator.store import UNDER_WAY
from compute_horde.validator.tables import jobs


class Gauges:
    """One read for each gauge; all but the jobs' and the database's are of this process."""

    def __init__(
        self, database: Database, matcher: Matcher, live: LiveJobs, outbox: Outbox, facilitator: FacilitatorLink
    ) -> None:
        self._database, self._matcher, self._live = database, matcher, live
        self._outbox, self._facilitator = outbox, facilitator

    def register(self, metrics: ValidatorMetrics) -> None:
        metrics.sample_jobs(self.jobs)
        metrics.sample_queue(self.queue)
        metrics.sample_queue_age(self.queue_age)
        metrics.sample_outbox(lambda: len(self._outbox))
        metrics.sample_connected(lambda: int(self._facilitator.connected.is_set()))
        metrics.sample_database_bytes(lambda: database_bytes(self._database))

    async def jobs(self) -> Mapping[tuple[str, ...], float]:
        """Jobs under way by state."""
        query = select(jobs.c.state, func.count()).where(jobs.c.state.in_(UNDER_WAY)).group_by(jobs.c.state)
        async with self._database.read() as connection:
            return {(str(state),): float(count) for state, count in await connection.execute(query)}

    def queue(self) -> Mapping[tuple[str, ...], float]:
        """Waiting jobs by class."""
        found: Counter[tuple[str, ...]] = Counter()
        for pool, order in self._matcher.waiting():
            found[(pool.executor_class.value,)] += len(order)
        return {key: float(count) for key, count in found.items()}

    def queue_age(self) -> Mapping[tuple[str, ...], float]:
        """Seconds that the oldest waiting job of each class has waited."""
        ages: dict[tuple[str, ...], float] = {}
        for driver in self._live.drivers():
            if (since := driver.quest.job.queued_at) is not None:
                key = (driver.job.request.executor_class.value,)
                ages[key] = max(ages.get(key, 0.0), time.time() - since)
        return ages

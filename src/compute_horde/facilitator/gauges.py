"""What metrics read of the facilitator when somebody looks."""

from collections.abc import Callable, Mapping

from sqlalchemy import func, select

from compute_horde.facilitator.tables import jobs
from compute_horde.facilitator.validators import Links
from compute_horde.lifecycle.states import JobState
from compute_horde.storage.database import Database
from compute_horde.storage.retention import database_bytes
from compute_horde.telemetry.facilitator import FacilitatorMetrics

_UNDER_WAY = jobs.c.deadline_us.is_not(None)
"""An index answers it: jobs that have ended cost nothing here."""


class Gauges:
    """``streams``: how many clients follow their jobs here; ``now``: UNIX seconds."""

    def __init__(
        self, database: Database, links: Links, streams: Callable[[], int], now: Callable[[], float]
    ) -> None:
        self._database, self._links, self._streams, self._now = database, links, streams, now

    def register(self, metrics: FacilitatorMetrics) -> None:
        metrics.sample_jobs(self.jobs)
        metrics.sample_undelivered_age(self.undelivered_age)
        metrics.sample_validators(self.validators)
        metrics.sample_streams(self._streams)
        metrics.sample_database_bytes(lambda: database_bytes(self._database))

    async def jobs(self) -> Mapping[tuple[str, ...], float]:
        """Jobs under way by state."""
        query = select(jobs.c.state, func.count()).where(_UNDER_WAY).group_by(jobs.c.state)
        async with self._database.read() as connection:
            return {(str(state),): float(count) for state, count in await connection.execute(query)}

    async def undelivered_age(self) -> float:
        """Seconds since the oldest job was created that no validator has taken; 0 where there is none."""
        query = select(func.min(jobs.c.created_us)).where(_UNDER_WAY, jobs.c.state == JobState.SENT.value)
        async with self._database.read() as connection:
            oldest = (await connection.execute(query)).scalar_one()
        return 0.0 if oldest is None else max(0.0, self._now() - oldest / 1e6)

    def validators(self) -> float:
        return len({link.hotkey for link in self._links.all()})

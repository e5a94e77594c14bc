"""What metrics read of the miner when somebody looks."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from compute_horde.miner.desk import Desk
from compute_horde.miner.outbox import Outbox
from compute_horde.miner.pool import Pool
from compute_horde.storage.database import Database
from compute_horde.storage.retention import database_bytes
from compute_horde.telemetry.miner import MinerMetrics
from compute_horde.telemetry.vocabulary import ExecutorState


class Gauges:
    """All but the outbox's and the database's figures are in memory. ``validators``: those on the chain now."""

    def __init__(
        self,
        database: Database,
        desk: Desk,
        outbox: Outbox,
        pool: Pool,
        validators: Callable[[], Collection[str]],
    ) -> None:
        self._database, self._desk, self._outbox, self._pool = database, desk, outbox, pool
        self._validators = validators

    def register(self, metrics: MinerMetrics) -> None:
        metrics.sample_jobs(self.jobs)
        metrics.sample_executors(self.executors)
        metrics.sample_outbox(self.outbox)
        metrics.sample_validators(lambda: self._outbox.validators)
        metrics.sample_database_bytes(lambda: database_bytes(self._database))

    def jobs(self) -> Mapping[tuple[str, ...], float]:
        """Jobs under way by state."""
        return Counter((job.row.state.value,) for job in self._desk.jobs.values() if not job.ended)

    def executors(self) -> Mapping[tuple[str, ...], float]:
        """Places by class and state."""
        found: dict[tuple[str, ...], float] = {}
        for executor_class in self._pool.manifest():
            name = executor_class.value
            found[name, ExecutorState.FREE.value] = self._pool.free(executor_class)
            found[name, ExecutorState.RESERVED.value] = self._pool.taken[executor_class]
            found[name, ExecutorState.TIDYING.value] = self._pool.tidying[executor_class]
        return found

    async def outbox(self) -> float:
        return await self._desk.store.unacknowledged(self._validators())

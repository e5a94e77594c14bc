"""What the validator forgets, and when: jobs that ended long ago with all that is kept of them."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Delete, delete, or_, select

from compute_horde.protocol.scheduling import attempt_uuid
from compute_horde.storage.database import Database
from compute_horde.storage.retention import Housekeeper, by_key, purge
from compute_horde.validator.store import ENDED
from compute_horde.validator.tables import attempts, incidents, jobs, receipts, trials

STEP = 100


class Forgetting:
    """The rules; ``days``: how long things are remembered."""

    def __init__(self, database: Database, days: float) -> None:
        self._database, self._days = database, days

    def housekeeper(self) -> Housekeeper:
        return Housekeeper(self._database, {"jobs": self.old_jobs, "incidents": self.old_incidents})

    def _before(self) -> float:
        return time.time() - self._days * 86400

    async def old_incidents(self) -> int:
        return await purge(self._database, *by_key(incidents.c.id, incidents.c.at < self._before()))

    async def old_jobs(self) -> int:
        """Ended jobs; those that ended under an older release are as old as their arrival."""
        before, gone = self._before(), 0
        old = or_(jobs.c.ended_at < before, jobs.c.ended_at.is_(None) & (jobs.c.received_at < before))
        may_go = old & jobs.c.state.in_(ENDED)
        while True:
            async with self._database.read() as connection:
                query = select(jobs.c.uuid, jobs.c.attempt).where(may_go).limit(STEP)
                found = list(await connection.execute(query))
            if not found:
                return gone
            async with self._database.begin() as connection:
                for statement in _statements(found):
                    await connection.execute(statement)
                uuids = [row.uuid for row in found]
                deleted = (await connection.execute(delete(jobs).where(jobs.c.uuid.in_(uuids), may_go))).rowcount
            gone += deleted
            if not deleted:
                return gone


def _statements(found: Sequence[Any]) -> Sequence[Delete]:
    uuids = [row.uuid for row in found]
    names = [attempt_uuid(row.uuid, number) for row in found for number in range(1, row.attempt + 1)]
    return (
        delete(trials).where(trials.c.job_uuid.in_(uuids)),
        delete(attempts).where(attempts.c.job_uuid.in_(uuids)),
        delete(receipts).where(receipts.c.job_uuid.in_(names)),
    )

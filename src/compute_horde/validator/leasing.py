"""Whose jobs and outgoing statuses are whose, among processes that share a database.

A process holds what it has let in. When it dies, another one takes over its jobs at once; when it only falls
silent, as soon as its leases are over. A job's statuses go with it, so that they leave in their order.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import select, update

from compute_horde.storage.clock import now
from compute_horde.storage.database import Database
from compute_horde.storage.leases import Owners, claim, is_free, renew
from compute_horde.validator.rows import Job, job_of
from compute_horde.validator.store import UNDER_WAY
from compute_horde.validator.tables import jobs, outbox

AT_ONCE = 200
"""Jobs that are taken over in one step."""

FOR_EVER_S = 10 * 365 * 86400.0
"""On SQLite, where a dead process is always known to be dead, leases do not end by themselves."""


@dataclass(frozen=True)
class TakenOver:
    """What is ours from now on. ``statuses``: ids in the outbox with their jobs, in order."""

    jobs: Sequence[Job] = ()
    statuses: Sequence[tuple[int, str]] = ()


class Leases:
    """This process's leases. ``lease_s``: how long one lasts where silence ends it."""

    def __init__(self, database: Database, owners: Owners, lease_s: float) -> None:
        self._database, self._owners = database, owners
        self.lease_s = lease_s if database.dialect == "postgresql" else FOR_EVER_S
        self.need_renewal = database.dialect == "postgresql"

    @property
    def token(self) -> str:
        return self._owners.token

    async def take_over(self, limit: int = AT_ONCE) -> TakenOver:
        """Take jobs and statuses that nobody holds, the oldest first. :raises DatabaseUnavailable:"""
        dead = await self._dead()
        if not dead and not await self._is_anything_free():
            return TakenOver()
        async with self._database.begin() as connection:
            under_way, oldest = jobs.c.state.in_(UNDER_WAY), [jobs.c.received_at]
            taken = claim(jobs, self.token, self.lease_s, under_way, dead=dead, order_by=oldest, limit=limit)
            rows = list(await connection.execute(taken))
            uuids = [row.uuid for row in rows]
            theirs = update(outbox).where(outbox.c.job_uuid.in_(uuids), outbox.c.lease_owner != self.token)
            mine = {"lease_owner": self.token, "lease_until": now() + self.lease_s}
            with_them = theirs.values(mine).returning(outbox.c.id, outbox.c.job_uuid)
            statuses = [(row.id, row.job_uuid) for row in await connection.execute(with_them)]
            left = claim(outbox, self.token, self.lease_s, dead=dead, order_by=[outbox.c.id])
            statuses += [(row.id, row.job_uuid) for row in await connection.execute(left)]
        ordered = sorted(set(statuses))
        found = sorted((job_of(row) for row in rows), key=lambda job: job.received_at)
        return TakenOver(found, ordered)

    async def _dead(self) -> frozenset[str]:
        """Those who died with work under way; the many jobs that have ended keep their last owners."""
        held, waiting = jobs.c.lease_owner, outbox.c.lease_owner
        async with self._database.read() as connection:
            driving = select(held).where(jobs.c.state.in_(UNDER_WAY), held != self.token).distinct()
            owners = set((await connection.execute(driving)).scalars())
            sending = select(waiting).where(waiting != self.token).distinct()
            owners.update((await connection.execute(sending)).scalars())
        return frozenset([owner for owner in owners if not await self._owners.is_alive(owner)])

    async def _is_anything_free(self) -> bool:
        free_job = select(jobs.c.uuid).where(jobs.c.state.in_(UNDER_WAY), is_free(jobs)).limit(1)
        free_status = select(outbox.c.id).where(is_free(outbox)).limit(1)
        async with self._database.read() as connection:
            found = (await connection.execute(free_job)).first() or (await connection.execute(free_status)).first()
        return found is not None

    async def renew(self) -> Collection[str]:
        """Hold on to everything. Answers the jobs under way that are still ours. :raises DatabaseUnavailable:"""
        async with self._database.begin() as connection:
            held = renew(jobs, self.token, self.lease_s, jobs.c.state.in_(UNDER_WAY)).returning(jobs.c.uuid)
            ours = {str(row.uuid) for row in await connection.execute(held)}
            await connection.execute(renew(outbox, self.token, self.lease_s))
        return ours

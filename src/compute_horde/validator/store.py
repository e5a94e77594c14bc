"""The validator's jobs in the database: let in, changed, ended. One transaction per method.

Every write on a job is conditional on what its writer had seen, and on its lease (:mod:`.leasing`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.lifecycle.states import TERMINAL, JobState
from compute_horde.storage.clock import now
from compute_horde.storage.database import Database
from compute_horde.storage.leases import is_held
from compute_horde.validator.rows import (
    Admission,
    Change,
    FailedAttempt,
    Incident,
    IssuedReceipt,
    Job,
    StaleJob,
    Trial,
    columns_of,
    job_of,
)
from compute_horde.validator.tables import attempts, incidents, jobs, outbox, receipts, trials

ENDED = [state.value for state in TERMINAL]
UNDER_WAY = [state.value for state in JobState if state not in TERMINAL]
"""Named one by one, since that is what an index answers: most jobs in the database ended long ago."""
LEASE_S = 15.0


class Store:
    """Queries about jobs. ``owner``: the holder of this process's leases; ``lease_s``: how long each lasts."""

    def __init__(self, database: Database, owner: str = "", lease_s: float = LEASE_S) -> None:
        self.database, self.owner, self.lease_s = database, owner, lease_s

    async def add_job(
        self, job: Job, replay_key: str | None, frame: str, *, again: bool = False
    ) -> tuple[Admission, int]:
        """Add a job with its first status, as ours. Answers the outbox id, 0 unless the job is new.

        ``again``: an earlier call may have been carried out, although its answer was lost.
        """
        same = jobs.c.uuid == job.uuid
        clash = same if replay_key is None else or_(same, jobs.c.replay_key == replay_key)
        try:
            return await self._add_job(job, replay_key, frame, clash, again)
        except IntegrityError:  # another process let it in at this very moment
            return await self._known(job.uuid, clash), 0

    async def _add_job(
        self, job: Job, replay_key: str | None, frame: str, clash: Any, again: bool
    ) -> tuple[Admission, int]:
        async with self.database.begin() as connection:
            known = (await connection.execute(select(jobs.c.uuid).where(clash))).scalars().all()
            if known and again and (done := await self._done_before(connection, job, Change(frame=frame))):
                return Admission.NEW, done
            if known:
                return (Admission.KNOWN if job.uuid in known else Admission.REPLAYED), 0
            await connection.execute(
                insert(jobs).values(
                    uuid=job.uuid,
                    request=job.request.to_frame(),
                    replay_key=replay_key,
                    state=job.state.value,
                    received_at=job.received_at,
                    cheated=False,
                    cancel_requested=False,
                    attempt=job.attempt,
                    ended_at=job.received_at if job.state.is_terminal else None,
                    **self._lease(),
                )
            )
            return Admission.NEW, await self._post(connection, job.uuid, frame)

    async def _known(self, job_uuid: str, clash: Any) -> Admission:
        async with self.database.read() as connection:
            known = (await connection.execute(select(jobs.c.uuid).where(clash))).scalars().all()
        return Admission.KNOWN if job_uuid in known else Admission.REPLAYED

    async def apply(self, job: Job, change: Change, *, again: bool = False) -> tuple[Job, int]:
        """A job's next step together with all that follows from it. Answers the job, and the outbox id or 0.

        ``again``: an earlier call may have been carried out, although its answer was lost.

        :raises StaleJob: the job is not as ``job`` says, or not ours.
        """
        after = replace(job, **change.values)
        async with self.database.begin() as connection:
            seen = (jobs.c.uuid == job.uuid, jobs.c.state == job.state.value, jobs.c.attempt == job.attempt)
            mine = is_held(jobs, self.owner)
            result = await connection.execute(
                update(jobs).where(*seen, mine).values(columns_of(change.values) or {"attempt": job.attempt})
            )
            if result.rowcount == 0:
                done = await self._done_before(connection, after, change) if again else None
                if done is None:
                    raise StaleJob(f"job {job.uuid} is no longer {job.state.value} here")
                return after, done
            await _keep(connection, job, change)
            return after, await self._post(connection, job.uuid, change.frame) if change.frame else 0

    async def _done_before(self, connection: AsyncConnection, after: Job, change: Change) -> int | None:
        """The outbox id of a change that was carried out already; None: it was not."""
        same = (jobs.c.uuid == after.uuid, jobs.c.state == after.state.value, jobs.c.attempt == after.attempt)
        found = await connection.execute(select(jobs.c.uuid).where(*same, is_held(jobs, self.owner)))
        if found.first() is None or change.frame is None:
            return None
        posted = select(outbox.c.id).where(outbox.c.job_uuid == after.uuid, outbox.c.frame == change.frame)
        return (await connection.execute(posted.order_by(outbox.c.id.desc()))).scalars().first()

    async def _post(self, connection: AsyncConnection, job_uuid: str, frame: str) -> int:
        values = {"job_uuid": job_uuid, "frame": frame, **self._lease()}
        key = (await connection.execute(insert(outbox).values(values))).inserted_primary_key
        assert key is not None  # noqa: S101 - the table has one
        return int(key[0])

    def _lease(self) -> dict[str, Any]:
        return {"lease_owner": self.owner, "lease_until": now() + self.lease_s}

    async def job(self, job_uuid: str) -> Job | None:
        async with self.database.read() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.uuid == job_uuid))).one_or_none()
        return job_of(row) if row else None

    async def ours(self, job_uuid: str) -> Job | None:
        """A job that is under way and that we hold."""
        mine = (jobs.c.uuid == job_uuid, jobs.c.state.in_(UNDER_WAY), is_held(jobs, self.owner))
        async with self.database.read() as connection:
            row = (await connection.execute(select(jobs).where(*mine))).one_or_none()
        return job_of(row) if row else None

    async def unfinished(self) -> Sequence[Job]:
        """The jobs that have not come to an end, oldest first."""
        query = select(jobs).where(jobs.c.state.in_(UNDER_WAY)).order_by(jobs.c.received_at)
        async with self.database.read() as connection:
            return [job_of(row) for row in await connection.execute(query)]

    async def request_cancel(self, job_uuid: str) -> bool:
        """Note that the job shall be cancelled, whoever drives it. False: it is not known, or has ended."""
        under_way = (jobs.c.uuid == job_uuid, jobs.c.state.in_(UNDER_WAY))
        async with self.database.begin() as connection:
            result = await connection.execute(update(jobs).where(*under_way).values(cancel_requested=True))
            return bool(result.rowcount)

    async def to_cancel(self) -> Sequence[str]:
        """Our jobs under way that shall be cancelled."""
        wished = (jobs.c.cancel_requested.is_(True), jobs.c.state.in_(UNDER_WAY), is_held(jobs, self.owner))
        async with self.database.read() as connection:
            return list((await connection.execute(select(jobs.c.uuid).where(*wished))).scalars())

    async def attempts_of(self, job_uuid: str) -> Sequence[FailedAttempt]:
        """The attempts that failed, first to last."""
        columns = [attempts.c[name] for name in FailedAttempt.__dataclass_fields__]
        query = select(*columns).where(attempts.c.job_uuid == job_uuid).order_by(attempts.c.number)
        async with self.database.read() as connection:
            return [FailedAttempt(*row) for row in await connection.execute(query)]

    async def trials_of(self, job_uuid: str) -> Sequence[Trial]:
        """What miners answered, the newest first."""
        columns = [trials.c[name] for name in Trial.__dataclass_fields__]
        query = select(*columns).where(trials.c.job_uuid == job_uuid).order_by(trials.c.last_at.desc())
        async with self.database.read() as connection:
            return [Trial(*row) for row in await connection.execute(query)]

    async def mark_cheated(self, job_uuid: str, incident: Incident) -> bool:
        """Whether the job was not marked before."""
        async with self.database.begin() as connection:
            result = await connection.execute(
                update(jobs).where(jobs.c.uuid == job_uuid, jobs.c.cheated.is_(False)).values(cheated=True)
            )
            if result.rowcount:
                await connection.execute(insert(incidents).values(vars(incident)))
            return bool(result.rowcount)

    async def add_incident(self, incident: Incident) -> None:
        async with self.database.begin() as connection:
            await connection.execute(insert(incidents).values(vars(incident)))

    async def incidents_since(self, at: float) -> Sequence[Incident]:
        columns = (incidents.c.miner_hotkey, incidents.c.job_uuid, incidents.c.code, incidents.c.at)
        async with self.database.read() as connection:
            rows = await connection.execute(select(*columns).where(incidents.c.at >= at).order_by(incidents.c.id))
            return [Incident(*row) for row in rows]

    async def receipts_of(self, name: str) -> Sequence[IssuedReceipt]:
        """``name``: the attempt's."""
        async with self.database.read() as connection:
            rows = await connection.execute(select(receipts).where(receipts.c.job_uuid == name))
            return [IssuedReceipt(*row) for row in rows]


async def _keep(connection: AsyncConnection, job: Job, change: Change) -> None:
    if change.anew:
        await connection.execute(delete(receipts).where(receipts.c.job_uuid == job.name))
    if change.receipt:
        await _keep_receipt(connection, change.receipt)
    if change.incident:
        await connection.execute(insert(incidents).values(vars(change.incident)))
    if change.failed:
        await connection.execute(insert(attempts).values(job_uuid=job.uuid, **vars(change.failed)))
    if change.trials:
        names = [trial.miner_hotkey for trial in change.trials]
        mine = (trials.c.job_uuid == job.uuid, trials.c.miner_hotkey.in_(names))
        await connection.execute(delete(trials).where(*mine))
        await connection.execute(
            insert(trials), [{"job_uuid": job.uuid, **vars(trial)} for trial in change.trials]
        )


async def _keep_receipt(connection: AsyncConnection, receipt: IssuedReceipt) -> None:
    """One per attempt and kind: the first stays (section 9.3)."""
    same = (receipts.c.job_uuid == receipt.job_uuid, receipts.c.kind == receipt.kind)
    if (await connection.execute(select(receipts.c.kind).where(*same))).first() is None:
        await connection.execute(
            insert(receipts).values(
                job_uuid=receipt.job_uuid,
                kind=receipt.kind,
                payload=receipt.payload,
                validator_signature=receipt.signature,
            )
        )

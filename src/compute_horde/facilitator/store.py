"""Jobs and their history in the database: one short transaction per event."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.facilitator.tables import jobs, microseconds, statuses
from compute_horde.lifecycle.states import IllegalTransition, JobState, transition
from compute_horde.protocol.enums import Participant
from compute_horde.storage.database import Database

NO_METADATA = "{}"
Row = Mapping[Any, Any]
"""Columns by name."""


class UnknownJob(LookupError):  # noqa: N818 - the domain's word
    """There is no such job, or it is not this participant's."""


@dataclass(frozen=True)
class NewJob:
    """A job that was checked and is about to be stored."""

    uuid: str
    user: str
    validator: str
    signature: str
    tag: str
    on_trusted_miner: bool
    request: str = field(repr=False)  # may hold secrets, as the frame may
    frame: str = field(repr=False)
    budget_s: float


@dataclass(frozen=True)
class StoredJob:
    """A job's row with its history, oldest entry first."""

    row: Row
    history: tuple[Row, ...]


class JobStore:
    """Tables ``job`` and ``job_status``. ``now_us``: microseconds, given by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, job: NewJob, now: float) -> StoredJob | None:
        """Store a job and its first status; None when a job with this signature is there already."""
        now_us = microseconds(now)
        values = {
            **vars(job),
            "state": JobState.SENT.value,
            "created_us": now_us,
            "deadline_us": microseconds(now + job.budget_s),
        }
        first = _status(job.uuid, job.user, JobState.SENT, NO_METADATA, now_us)
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(jobs).values(values))
                await connection.execute(insert(statuses).values(first))
        except IntegrityError:
            return None
        return StoredJob(values, (first,))

    async def by_signature(self, signature: str) -> StoredJob | None:
        async with self._database.begin() as connection:
            query = select(jobs).where(jobs.c.signature == signature)
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else (await _with_history(connection, [row]))[0]

    async def get(self, uuid: str, user: str) -> StoredJob | None:
        async with self._database.begin() as connection:
            query = select(jobs).where(jobs.c.uuid == uuid, jobs.c.user == user)
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else (await _with_history(connection, [row]))[0]

    async def page(
        self, user: str, *, offset: int, limit: int, tag: str | None = None, uuids: tuple[str, ...] = ()
    ) -> tuple[int, list[StoredJob]]:
        """How many jobs match, and those of one page: newest first, ties by UUID, so pages never overlap (G18)."""
        where = and_(
            jobs.c.user == user,
            *([jobs.c.tag == tag] if tag is not None else []),
            *([jobs.c.uuid.in_(uuids)] if uuids else []),
        )
        newest = select(jobs).where(where).order_by(jobs.c.created_us.desc(), jobs.c.uuid)
        async with self._database.begin() as connection:
            count = (await connection.execute(select(func.count()).select_from(jobs).where(where))).scalar_one()
            if offset >= count:
                return count, []
            rows = (await connection.execute(newest.offset(offset).limit(limit))).mappings().all()
            return count, await _with_history(connection, list(rows))

    async def add_status(
        self, uuid: str, to: JobState, metadata: str, by: Participant, now: float, validator: str | None = None
    ) -> str:
        """Move a job on; returns whose it is. ``validator``: only if the job is addressed to it (G16).

        :raises UnknownJob: :raises IllegalTransition:
        """
        now_us = microseconds(now)
        job = select(jobs.c.user, jobs.c.state, jobs.c.budget_s, jobs.c.deadline_us).where(jobs.c.uuid == uuid)
        if validator is not None:
            job = job.where(jobs.c.validator == validator)
        async with self._database.begin() as connection:
            row = (await connection.execute(job)).one_or_none()
            if row is None:
                raise UnknownJob(uuid)
            old = JobState(row.state)
            transition(old, to, by)
            deadline = _deadline(old, to, row.deadline_us, now, row.budget_s)
            moved = await connection.execute(
                update(jobs)
                .where(jobs.c.uuid == uuid, jobs.c.state == old.value)
                .values(state=to.value, deadline_us=deadline)
            )
            if moved.rowcount != 1:
                raise IllegalTransition("the job has moved on meanwhile")
            await connection.execute(insert(statuses).values(_status(uuid, row.user, to, metadata, now_us)))
        return str(row.user)

    async def waiting(self, validator: str) -> list[tuple[str, str]]:
        """UUID and frame of each job that this validator has not confirmed, oldest first."""
        query = (
            select(jobs.c.uuid, jobs.c.frame)
            .where(jobs.c.validator == validator, jobs.c.state == JobState.SENT.value)
            .order_by(jobs.c.created_us, jobs.c.uuid)
        )
        async with self._database.begin() as connection:
            return [(row.uuid, row.frame) for row in await connection.execute(query)]

    async def next_deadline(self) -> float | None:
        """When (UNIX seconds) the first job under way will be given up."""
        async with self._database.begin() as connection:
            first = (await connection.execute(select(func.min(jobs.c.deadline_us)))).scalar_one()
        return None if first is None else first / 1_000_000

    async def overdue(self, now: float) -> list[tuple[str, JobState]]:
        """Jobs under way whose deadline has passed, with their state."""
        query = select(jobs.c.uuid, jobs.c.state).where(jobs.c.deadline_us <= microseconds(now))
        async with self._database.begin() as connection:
            return [(row.uuid, JobState(row.state)) for row in await connection.execute(query)]

    async def last_event(self) -> int:
        async with self._database.begin() as connection:
            return (await connection.execute(select(func.max(statuses.c.id)))).scalar_one() or 0

    async def events_after(self, user: str, after: int, limit: int) -> list[Row]:
        """The user's next status entries behind position ``after``, in order."""
        query = select(statuses).where(statuses.c.user == user, statuses.c.id > after)
        async with self._database.begin() as connection:
            rows = await connection.execute(query.order_by(statuses.c.id).limit(limit))
            return list(rows.mappings().all())


def _deadline(old: JobState, to: JobState, current: int | None, now: float, budget_s: float) -> int | None:
    """A job's time runs anew when its validator first takes it up: it may have waited for a connection."""
    if to.is_terminal:
        return None
    return microseconds(now + budget_s) if old is JobState.SENT else current


def _status(uuid: str, user: str, state: JobState, metadata: str, now_us: int) -> dict[str, object]:
    return {"job_uuid": uuid, "user": user, "status": state.value, "metadata": metadata, "created_us": now_us}


async def _with_history(connection: AsyncConnection, rows: list[Row]) -> list[StoredJob]:
    query = select(statuses).where(statuses.c.job_uuid.in_([row["uuid"] for row in rows])).order_by(statuses.c.id)
    history: dict[str, list[Row]] = {}
    for entry in (await connection.execute(query)).mappings():
        history.setdefault(entry["job_uuid"], []).append(entry)
    return [StoredJob(row, tuple(history[row["uuid"]])) for row in rows]

"""Jobs and their history in the database: one short transaction per event."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.facilitator.tables import jobs, microseconds, statuses
from compute_horde.lifecycle.states import PROGRESS, IllegalTransition, JobState, transition
from compute_horde.protocol.enums import Participant
from compute_horde.storage.database import Database

NO_METADATA = "{}"
PERHAPS_RUNNING = 1000
OVERDUE = 100
"""Most jobs, with their frames, that are read at a time."""
Row = Mapping[Any, Any]
"""Columns by name."""


class UnknownJob(LookupError):  # noqa: N818 - the domain's word
    """There is no such job, or it is not this participant's."""


class Conflict(ValueError):  # noqa: N818 - the domain's word
    """A job cannot be stored beside those that are there. The text says why, for its user."""


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
    run_cross_validation: bool = False
    cross_validates: str | None = None


@dataclass(frozen=True)
class StoredJob:
    """A job's row with its history, oldest entry first. ``repetition``: the job that repeats this one."""

    row: Row
    history: tuple[Row, ...]
    repetition: str | None = None


@dataclass(frozen=True)
class Outline:
    """Where a job stands."""

    validator: str
    state: JobState


@dataclass(frozen=True)
class UnderWay(Outline):
    """A job that its user or the clock may end."""

    uuid: str
    cancel_requested: bool
    frame: str = field(repr=False)


_UNDER_WAY = select(jobs.c.uuid, jobs.c.validator, jobs.c.state, jobs.c.cancel_requested, jobs.c.frame)


class JobStore:
    """Tables ``job`` and ``job_status``. ``now_us``: microseconds, given by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, job: NewJob, now: float) -> StoredJob:
        """Store a job and its first status.

        :raises Conflict: a job with this signature, or another repetition of the same job, is there already; or
            the job to be repeated is not one that can be.
        """
        now_us = microseconds(now)
        values = {
            **vars(job),
            "state": JobState.SENT.value,
            "created_us": now_us,
            "deadline_us": microseconds(now + job.budget_s),
            "cancel_requested": False,
        }
        first = _status(job.uuid, job.user, JobState.SENT, NO_METADATA, now_us)
        try:
            async with self._database.begin() as connection:
                await _check_repeated(connection, job)
                await connection.execute(insert(jobs).values(values))
                await connection.execute(insert(statuses).values(first))
        except IntegrityError:
            raise Conflict("This job is repeated already.") from None
        return StoredJob(values, (first,))

    async def by_signature(self, signature: str) -> StoredJob | None:
        async with self._database.read() as connection:
            query = select(jobs).where(jobs.c.signature == signature)
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else (await with_history(connection, [row]))[0]

    async def get(self, uuid: str, user: str) -> StoredJob | None:
        async with self._database.read() as connection:
            query = select(jobs).where(jobs.c.uuid == uuid, jobs.c.user == user)
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else (await with_history(connection, [row]))[0]

    async def outline(self, uuid: str, user: str) -> Outline | None:
        """Where one of the user's jobs stands, without its documents."""
        query = select(jobs.c.validator, jobs.c.state).where(jobs.c.uuid == uuid, jobs.c.user == user)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Outline(row.validator, JobState(row.state))

    async def add_status(
        self, uuid: str, to: JobState, metadata: str, by: Participant, now: float, validator: str | None = None
    ) -> str:
        """Move a job on; returns whose it is. ``validator``: only if the job is addressed to it (G16).

        A job's time runs anew when its validator first takes it up: it may have waited for a connection.

        :raises UnknownJob: :raises IllegalTransition:
        """
        now_us = microseconds(now)
        job = select(jobs.c.user, jobs.c.state, jobs.c.budget_s, jobs.c.deadline_us, jobs.c.cancel_requested)
        job = job.where(jobs.c.uuid == uuid)
        if validator is not None:
            job = job.where(jobs.c.validator == validator)
        async with self._database.begin() as connection:
            row = (await connection.execute(job)).one_or_none()
            if row is None:
                raise UnknownJob(uuid)
            old = JobState(row.state)
            transition(old, to, by)
            renewed = old is JobState.SENT and not row.cancel_requested
            deadline = microseconds(now + row.budget_s) if renewed else row.deadline_us
            moved = await connection.execute(
                update(jobs)
                .where(jobs.c.uuid == uuid, jobs.c.state == old.value)
                .values(state=to.value, deadline_us=None if to.is_terminal else deadline)
            )
            if moved.rowcount != 1:
                raise IllegalTransition("the job has moved on meanwhile")
            await connection.execute(insert(statuses).values(_status(uuid, row.user, to, metadata, now_us)))
        return str(row.user)

    async def waiting(self, validator: str) -> list[tuple[str, str]]:
        """UUID and frame of each job that this validator has not confirmed, oldest first; not the cancelled."""
        query = (
            select(jobs.c.uuid, jobs.c.frame)
            .where(jobs.c.validator == validator, jobs.c.state == JobState.SENT.value)
            .where(jobs.c.cancel_requested.is_(False))
            .order_by(jobs.c.created_us, jobs.c.uuid)
        )
        async with self._database.read() as connection:
            return [(row.uuid, row.frame) for row in await connection.execute(query)]

    async def next_deadline(self) -> float | None:
        """When (UNIX seconds) the first job under way will be given up."""
        async with self._database.read() as connection:
            first = (await connection.execute(select(func.min(jobs.c.deadline_us)))).scalar_one()
        return None if first is None else first / 1_000_000

    async def overdue(self, now: float) -> list[UnderWay]:
        """Jobs under way whose deadline has passed; the first of them where there are many."""
        late = _UNDER_WAY.where(jobs.c.deadline_us <= microseconds(now)).order_by(jobs.c.deadline_us)
        async with self._database.read() as connection:
            found = await connection.execute(late.limit(OVERDUE))
            return [_under_way(row) for row in found.mappings()]

    async def request_cancel(self, uuid: str, user: str, deadline: float) -> UnderWay | None:
        """Note that the user wants a job ended, at the latest at ``deadline``; None where there is no such job.

        A job that has ended is left as it is, and an earlier deadline stays.
        """
        own = (jobs.c.uuid == uuid, jobs.c.user == user)
        async with self._database.begin() as connection:
            await connection.execute(
                update(jobs).where(*own, jobs.c.deadline_us.is_not(None)).values(cancel_requested=True)
            )
            later = jobs.c.deadline_us > microseconds(deadline)
            await connection.execute(update(jobs).where(*own, later).values(deadline_us=microseconds(deadline)))
            row = (await connection.execute(_UNDER_WAY.where(*own))).mappings().one_or_none()
        return None if row is None else _under_way(row)

    async def cancelling(self, validator: str) -> list[UnderWay]:
        """This validator's jobs that are to be cancelled and have not ended, oldest first."""
        states = [state.value for state in PROGRESS]
        query = _UNDER_WAY.where(jobs.c.validator == validator, jobs.c.state.in_(states))
        query = query.where(jobs.c.cancel_requested.is_(True)).order_by(jobs.c.created_us, jobs.c.uuid)
        async with self._database.read() as connection:
            return [_under_way(row) for row in (await connection.execute(query)).mappings()]

    async def perhaps_running(self, validator: str, now: float) -> list[str]:
        """This validator's newest jobs that ended as cancelled and whose time, renewed once, is not over."""
        query = (
            select(jobs.c.uuid)
            .where(jobs.c.validator == validator, jobs.c.state == JobState.CANCELLED.value)
            .where(jobs.c.created_us + jobs.c.budget_s * 2_000_000 > microseconds(now))
            .order_by(jobs.c.created_us.desc(), jobs.c.uuid)
        )
        async with self._database.read() as connection:
            return list((await connection.execute(query.limit(PERHAPS_RUNNING))).scalars())

    async def last_event(self) -> int:
        async with self._database.read() as connection:
            return (await connection.execute(select(func.max(statuses.c.id)))).scalar_one() or 0

    async def events_after(self, user: str, after: int, limit: int) -> list[Row]:
        """The user's next status entries behind position ``after``, in order."""
        query = select(statuses).where(statuses.c.user == user, statuses.c.id > after)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(statuses.c.id).limit(limit))
            return list(rows.mappings().all())


def _status(uuid: str, user: str, state: JobState, metadata: str, now_us: int) -> dict[str, object]:
    return {"job_uuid": uuid, "user": user, "status": state.value, "metadata": metadata, "created_us": now_us}


def _under_way(row: Row) -> UnderWay:
    return UnderWay(row["validator"], JobState(row["state"]), row["uuid"], row["cancel_requested"], row["frame"])


async def _check_repeated(connection: AsyncConnection, job: NewJob) -> None:
    """:raises Conflict: the job to be repeated is not the user's, ran on the trusted miner, or is repeated."""
    if job.cross_validates is None:
        return
    query = select(jobs.c.on_trusted_miner).where(jobs.c.uuid == job.cross_validates, jobs.c.user == job.user)
    trusted = (await connection.execute(query)).scalar()
    if trusted is None:
        raise Conflict("There is no such job of yours.")
    if trusted:
        raise Conflict("That job ran on the trusted miner itself.")


async def with_history(connection: AsyncConnection, rows: Sequence[Row]) -> list[StoredJob]:
    """These jobs with their histories and repetitions."""
    uuids = [row["uuid"] for row in rows]
    query = select(statuses).where(statuses.c.job_uuid.in_(uuids)).order_by(statuses.c.id)
    history: dict[str, list[Row]] = {}
    for entry in (await connection.execute(query)).mappings():
        history.setdefault(entry["job_uuid"], []).append(entry)
    repeating = select(jobs.c.cross_validates, jobs.c.uuid).where(jobs.c.cross_validates.in_(uuids))
    repetitions = {row.cross_validates: row.uuid for row in await connection.execute(repeating)}
    return [StoredJob(row, tuple(history[row["uuid"]]), repetitions.get(row["uuid"])) for row in rows]

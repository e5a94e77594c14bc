"""Jobs and their outbox, in the database."""

import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.lifecycle.states import PROGRESS, TERMINAL, JobState
from compute_horde.miner.tables import job_messages, jobs
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.storage.database import Database
from compute_horde.storage.retention import by_key, purge

Clock = Callable[[], float]
Also = Callable[[AsyncConnection], Awaitable[None]]

REPLAY_JOBS = 1000
"""At most so many ended jobs, the newest, are re-sent to a validator that reconnects; it may ask for older ones by
name for as long as they are kept.
"""

PURGE_STEP = 200

_TERMINAL = [state.value for state in TERMINAL]


class JobRow(NamedTuple):
    """A job as stored. ``initial`` and ``request``: the validator's frames, for the executor."""

    job_uuid: str
    validator: str
    executor_class: ExecutorClass
    token: str
    state: JobState
    initial: str
    request: str | None
    created_at: float
    deadline_at: float
    acknowledged: bool
    cancel_requested: bool = False


_COLUMNS = [jobs.c[name] for name in JobRow._fields]
_LIGHT = [
    {"initial": sa.literal("").label("initial"), "request": sa.null().label("request")}.get(name, jobs.c[name])
    for name in JobRow._fields
]
"""A row without the frames for the executor, which may be large."""


class Envelope(NamedTuple):
    """One frame of the outbox."""

    type: str
    frame: str


def _row(row: Any) -> JobRow:
    values = dict(row._mapping)
    return JobRow(
        **{
            **values,
            "executor_class": ExecutorClass(values["executor_class"]),
            "state": JobState(values["state"]),
        }
    )


class JobStore:
    """Every method is one transaction, and may be repeated although it was carried out (a commit's answer can be
    lost). All of them raise ``DatabaseUnavailable``.
    """

    def __init__(self, database: Database, clock: Clock = time.time) -> None:
        self._database, self._clock = database, clock

    async def settled(self) -> None:
        """Return when what was stored before is on the disk. :raises DatabaseUnavailable: it cannot be."""
        await self._database.settled()

    async def accept(self, row: JobRow, accepted: Envelope, also: Also | None) -> None:
        """Store a new job with its first message; ``also`` joins the transaction (the started receipt)."""
        now = self._clock()
        values = row._asdict() | {"state": row.state.value, "updated_at": now}
        async with self._database.begin() as connection:
            if also is not None:
                await also(connection)
            await connection.execute(jobs.insert().values(values))
            await self._post(connection, row.job_uuid, accepted)

    async def advance(self, job_uuid: str, before: JobState, after: JobState, message: Envelope) -> bool:
        """Move on and store the message that says so. False when the row has moved meanwhile (G49), unless it was
        this very step that moved it.

        A row that is behind ``before`` moves on as well: a database server that failed has lost its last commits.
        """
        up_to_before = [state.value for state in PROGRESS[: PROGRESS.index(before) + 1]]
        statement = (
            jobs.update()
            .where(jobs.c.job_uuid == job_uuid, jobs.c.state.in_(up_to_before))
            .values(state=after.value, updated_at=self._clock())
        )
        async with self._database.begin() as connection:
            if (await connection.execute(statement)).rowcount != 1:
                return await self._is_done(connection, job_uuid, after, message.type)
            await self._post(connection, job_uuid, message)
        return True

    async def put_back(self, row: JobRow, message: Envelope) -> bool:
        """Store a job anew that the database has lost altogether, and the message with it. False: it has not."""
        values = row._asdict() | {"state": row.state.value, "updated_at": self._clock()}
        async with self._database.begin() as connection:
            if await connection.scalar(sa.select(jobs.c.job_uuid).where(jobs.c.job_uuid == row.job_uuid)):
                return False
            await connection.execute(jobs.insert().values(values))
            await self._post(connection, row.job_uuid, message)
        return True

    async def post(self, job_uuid: str, message: Envelope) -> None:
        """Store a message that changes no state. There is one of each type."""
        async with self._database.begin() as connection:
            if not await connection.scalar(_has_message(job_uuid, message.type)):
                await self._post(connection, job_uuid, message)

    async def drop(self, job_uuid: str) -> None:
        """Undo an acceptance of which nobody was told."""
        async with self._database.begin() as connection:
            await connection.execute(jobs.delete().where(jobs.c.job_uuid == job_uuid))

    async def set_request(self, job_uuid: str, frame: str) -> None:
        """Keep the validator's job request, for an executor that comes later or comes back."""
        statement = jobs.update().where(jobs.c.job_uuid == job_uuid)
        async with self._database.begin() as connection:
            await connection.execute(statement.values(request=frame, updated_at=self._clock()))

    async def request_cancel(self, job_uuid: str) -> None:
        """Keep that the validator cancelled the job, for a miner that is restarted."""
        statement = jobs.update().where(jobs.c.job_uuid == job_uuid)
        async with self._database.begin() as connection:
            await connection.execute(statement.values(cancel_requested=True, updated_at=self._clock()))

    async def acknowledge(self, job_uuid: str, also: Also | None) -> None:
        """The validator has what it needs; ``also`` joins the transaction (the finished receipt)."""
        statement = jobs.update().where(jobs.c.job_uuid == job_uuid).values(acknowledged=True)
        async with self._database.begin() as connection:
            if also is not None:
                await also(connection)
            await connection.execute(statement)

    async def write(self, also: Also) -> None:
        """A transaction of its own for something that joins others elsewhere."""
        async with self._database.begin() as connection:
            await also(connection)

    async def find(self, job_uuid: str, *, frames: bool = True) -> JobRow | None:
        """``frames``: also what the executor was to be sent."""
        rows = await self._select(jobs.c.job_uuid == job_uuid, columns=_COLUMNS if frames else _LIGHT)
        return rows[0] if rows else None

    async def under_way(self) -> list[JobRow]:
        """Oldest first."""
        return await self._select(jobs.c.state.not_in(_TERMINAL))

    async def pending(self, validator: str) -> list[str]:
        """The names of jobs that ended without their finished receipt: the newest, oldest first."""
        statement = (
            sa.select(jobs.c.job_uuid)
            .where(jobs.c.validator == validator, jobs.c.acknowledged.is_(False), jobs.c.state.in_(_TERMINAL))
            .order_by(jobs.c.created_at.desc())
            .limit(REPLAY_JOBS)
        )
        async with self._database.read() as connection:
            return [*await connection.scalars(statement)][::-1]

    async def messages(self, job_uuid: str) -> list[Envelope]:
        """The outbox of a job, in order."""
        statement = sa.select(job_messages.c.type, job_messages.c.frame).where(job_messages.c.job_uuid == job_uuid)
        async with self._database.read() as connection:
            rows = await connection.execute(statement.order_by(job_messages.c.id))
            return [Envelope(*row) for row in rows]

    async def last_message_at(self, job_uuid: str) -> float | None:
        """When (UNIX seconds) the newest message of a job was stored."""
        newest = sa.select(sa.func.max(job_messages.c.created_at)).where(job_messages.c.job_uuid == job_uuid)
        async with self._database.read() as connection:
            found: float | None = await connection.scalar(newest)
        return found

    async def unacknowledged(self, validators: Collection[str]) -> int:
        """How many messages are kept for these validators."""
        theirs = sa.and_(jobs.c.validator.in_(sorted(validators)), jobs.c.acknowledged.is_(False))
        kept = sa.select(sa.func.count()).where(
            job_messages.c.job_uuid.in_(sa.select(jobs.c.job_uuid).where(theirs))
        )
        async with self._database.read() as connection:
            return int(await connection.scalar(kept) or 0)

    async def purge(self, before: float) -> int:
        """Forget jobs that ended before this moment, in small steps; how many."""
        ended = sa.and_(jobs.c.updated_at < before, jobs.c.state.in_(_TERMINAL))
        return await purge(self._database, *by_key(jobs.c.job_uuid, ended), step=PURGE_STEP)

    async def _select(self, condition: sa.ColumnElement[bool], columns: Any = _COLUMNS) -> list[JobRow]:
        statement = sa.select(*columns).where(condition).order_by(jobs.c.created_at)
        async with self._database.read() as connection:
            return [_row(row) for row in await connection.execute(statement)]

    async def _is_done(self, connection: AsyncConnection, job_uuid: str, state: JobState, message: str) -> bool:
        moved = sa.select(jobs.c.job_uuid).where(jobs.c.job_uuid == job_uuid, jobs.c.state == state.value)
        if await connection.scalar(moved) is None:
            return False
        return bool(await connection.scalar(_has_message(job_uuid, message)))

    async def _post(self, connection: AsyncConnection, job_uuid: str, message: Envelope) -> None:
        await connection.execute(
            job_messages.insert().values(
                job_uuid=job_uuid, type=message.type, frame=message.frame, created_at=self._clock()
            )
        )


def _has_message(job_uuid: str, message_type: str) -> sa.Select[Any]:
    return (
        sa.select(sa.func.count())
        .select_from(job_messages)
        .where(job_messages.c.job_uuid == job_uuid, job_messages.c.type == message_type)
    )

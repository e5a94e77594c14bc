"""Jobs and their outbox, in the database."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.lifecycle.states import TERMINAL, JobState
from compute_horde.miner.tables import job_messages, jobs
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.storage.database import Database

Clock = Callable[[], float]
Also = Callable[[AsyncConnection], Awaitable[None]]

REPLAY_SECONDS = 24 * 3600
"""Jobs older than this are not re-sent to a validator that reconnects (section 6.6)."""

REPLAY_JOBS = 200
"""At most so many jobs, the newest, are re-sent."""

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
    """Every method is one transaction."""

    def __init__(self, database: Database, clock: Clock = time.time) -> None:
        self._database, self._clock = database, clock

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
        """Move on and store the message that says so. False when the row has moved meanwhile (G49)."""
        statement = (
            jobs.update()
            .where(jobs.c.job_uuid == job_uuid, jobs.c.state == before.value)
            .values(state=after.value, updated_at=self._clock())
        )
        async with self._database.begin() as connection:
            if (await connection.execute(statement)).rowcount != 1:
                return False
            await self._post(connection, job_uuid, message)
        return True

    async def post(self, job_uuid: str, message: Envelope) -> None:
        """Store a message that changes no state."""
        async with self._database.begin() as connection:
            await self._post(connection, job_uuid, message)

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

    async def find(self, job_uuid: str) -> JobRow | None:
        rows = await self._select(jobs.c.job_uuid == job_uuid)
        return rows[0] if rows else None

    async def under_way(self) -> list[JobRow]:
        return await self._select(jobs.c.state.not_in(_TERMINAL))

    async def pending(self, validator: str) -> list[JobRow]:
        """What to re-send to a validator that reconnects: under way, or ended without its finished receipt."""
        since = self._clock() - REPLAY_SECONDS
        conditions = (
            jobs.c.validator == validator,
            jobs.c.acknowledged.is_(False),
            jobs.c.created_at > since,
        )
        return await self._select(*conditions, limit=REPLAY_JOBS)

    async def messages(self, job_uuid: str) -> list[Envelope]:
        """The outbox of a job, in order."""
        statement = sa.select(job_messages.c.type, job_messages.c.frame).where(job_messages.c.job_uuid == job_uuid)
        async with self._database.read() as connection:
            rows = await connection.execute(statement.order_by(job_messages.c.id))
            return [Envelope(*row) for row in rows]

    async def purge(self, before: float) -> None:
        """Forget jobs that ended and were accepted before this moment."""
        statement = jobs.delete().where(jobs.c.created_at < before, jobs.c.state.in_(_TERMINAL))
        async with self._database.begin() as connection:
            await connection.execute(statement)

    async def _select(self, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> list[JobRow]:
        newest = sa.select(*_COLUMNS).where(*conditions).order_by(jobs.c.created_at.desc()).limit(limit)
        async with self._database.read() as connection:
            return [_row(row) for row in await connection.execute(newest)][::-1]

    async def _post(self, connection: AsyncConnection, job_uuid: str, message: Envelope) -> None:
        await connection.execute(
            job_messages.insert().values(
                job_uuid=job_uuid, type=message.type, frame=message.frame, created_at=self._clock()
            )
        )

"""Jobs and their history in the database: one short transaction per event."""

from sqlalchemy import BigInteger, Float, cast, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.facilitator.deadlines import latest_end
from compute_horde.facilitator.rows import (
    OUTLINE,
    UNDER_WAY,
    VIEWED,
    Conflict,
    NewJob,
    Outline,
    Row,
    StoredJob,
    UnderWay,
    outline,
    under_way,
    with_history,
)
from compute_horde.facilitator.statuses import Change, Moved, first_status, move, order_of
from compute_horde.facilitator.tables import jobs, microseconds, statuses
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.scheduling import MAX_BACKOFF_SECONDS, MAX_QUEUE_SECONDS, Scheduling
from compute_horde.storage.database import Database
from compute_horde.storage.order import one_by_one

OVERDUE = 100
"""Most jobs that are read at a time."""
HEAD_CHARACTERS = 1000
_NOT_COLUMNS = {"attempts"}


class JobStore:
    """Tables ``job`` and ``job_status``.

    ``now``: the wall clock, for moments that are shown; ``clock``: the steady one, for deadlines; both in UNIX
    seconds. Without a ``clock`` they are the same.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def settled(self) -> None:
        """Return when what was stored before is on the disk. :raises DatabaseUnavailable: it cannot be."""
        await self._database.settled()

    async def create(self, job: NewJob, now: float, clock: float | None = None) -> StoredJob:
        """Store a job and its first status.

        :raises Conflict: a job with this signature, or another repetition of the same job, is there already; or
            the job to be repeated is not one that can be.
        """
        now_us = microseconds(now)
        values = _values(job, now_us, now if clock is None else clock)
        first = first_status(job.uuid, job.user, now_us)
        try:
            async with self._database.begin() as connection:
                await _check_repeated(connection, job)
                await connection.execute(insert(jobs).values(values))
                await one_by_one(connection, order_of(job.user))
                await connection.execute(insert(statuses).values(first))
        except IntegrityError:
            raise Conflict("This job is repeated already.") from None
        return StoredJob({**_DEFAULTS, **values}, (first,))

    async def by_signature(self, signature: str) -> StoredJob | None:
        async with self._database.read() as connection:
            query = select(*VIEWED).where(jobs.c.signature == signature)
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else (await with_history(connection, [row]))[0]

    async def get(self, uuid: str, user: str) -> StoredJob | None:
        async with self._database.read() as connection:
            query = select(*VIEWED).where(jobs.c.uuid == uuid, jobs.c.user == user)
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else (await with_history(connection, [row]))[0]

    async def outline(self, uuid: str, user: str) -> Outline | None:
        """Where one of the user's jobs stands, without its documents."""
        query = select(*OUTLINE).where(jobs.c.uuid == uuid, jobs.c.user == user)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else outline(row)

    async def request_head(self, uuid: str) -> str:
        """The beginning of a job's request, as JSON; empty where there is no such job."""
        query = select(func.substr(jobs.c.request, 1, HEAD_CHARACTERS)).where(jobs.c.uuid == uuid)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar() or ""

    async def add_status(self, change: Change, now: float, clock: float | None = None) -> Moved:
        """Move a job on.

        :raises UnknownJob: :raises IllegalTransition:
        :raises ClaimedElsewhere: another instance of its validator has it.
        """
        return await move(self._database, change, now, now if clock is None else clock)

    async def next_deadline(self) -> float | None:
        """When (UNIX seconds) the first job under way will be given up."""
        async with self._database.read() as connection:
            first = (await connection.execute(select(func.min(jobs.c.deadline_us)))).scalar_one()
        return None if first is None else first / 1_000_000

    async def bound_deadlines(self, clock: float) -> int:
        """Bring deadlines nearer that no clock which is right can have set; how many there were.

        The clock of the process before may have been ahead by years.
        """
        waits = func.coalesce(jobs.c.queue_limit_s, cast(MAX_QUEUE_SECONDS, Float(53))) + MAX_BACKOFF_SECONDS
        most = cast((waits + jobs.c.budget_s) * 1_000_000, BigInteger) + microseconds(clock)
        far = update(jobs).where(jobs.c.deadline_us > most).values(deadline_us=most)
        async with self._database.begin() as connection:
            return (await connection.execute(far)).rowcount

    async def overdue(self, clock: float) -> list[UnderWay]:
        """Jobs under way whose deadline has passed; the first of them where there are many."""
        late = UNDER_WAY.where(jobs.c.deadline_us <= microseconds(clock)).order_by(jobs.c.deadline_us)
        async with self._database.read() as connection:
            found = await connection.execute(late.limit(OVERDUE))
            return [under_way(row) for row in found.mappings()]

    async def last_event(self, user: str) -> int:
        """The user's newest position; 0 where there is none."""
        query = select(func.max(statuses.c.id)).where(statuses.c.user == user)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one() or 0

    async def events_after(self, user: str, after: int, limit: int) -> list[Row]:
        """The user's next status entries behind position ``after``, in order.

        None comes later with a smaller position: a user's statuses are committed in the order of their ids.
        """
        query = select(statuses).where(statuses.c.user == user, statuses.c.id > after)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(statuses.c.id).limit(limit))
            return list(rows.mappings().all())


_DEFAULTS = {
    "attempt": 1,
    "holder": None,
    "queue_position": None,
    "queue_length": None,
    "queue_starts_us": None,
    "ended_us": None,
    "result_bytes": 0,
}


def _values(job: NewJob, now_us: int, clock: float) -> dict[str, object]:
    wishes = Scheduling(
        queue_time_limit=None if job.queue_limit_s is None else int(job.queue_limit_s),
        attempts=job.attempts,
        retry_backoff=job.retry_backoff_s,
    )
    kept = {name: value for name, value in vars(job).items() if name not in _NOT_COLUMNS}
    return {
        **kept,
        "state": JobState.SENT.value,
        "created_us": now_us,
        "deadline_us": microseconds(clock + job.budget_s),
        "latest_us": microseconds(latest_end(clock, job.budget_s, wishes)),
        "cancel_requested": False,
    }


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

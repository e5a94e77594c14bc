"""Which jobs a validator's links are to be given, and to be told to stop: reads and claims of table ``job``."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Float, cast, func, or_, select, update

from compute_horde.facilitator.rows import UNDER_WAY, UnderWay, under_way
from compute_horde.facilitator.tables import jobs, microseconds
from compute_horde.lifecycle.states import PROGRESS, JobState
from compute_horde.storage.database import Database

PERHAPS_RUNNING = 1000
CLAIMED_AT_ONCE = 10
"""Jobs, with their frames, in one transaction."""
USUAL_QUEUE_SECONDS = 3600
_UNCONFIRMED = (jobs.c.state == JobState.SENT.value, jobs.c.cancel_requested.is_(False))


@dataclass(frozen=True)
class Unconfirmed:
    """A job that its validator has not confirmed. ``given_to``: see :class:`Outline`."""

    uuid: str
    given_to: str | None


class Handing:
    """Table ``job``, as those see it who serve a validator's connections."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unconfirmed(self, validator: str) -> list[Unconfirmed]:
        """This validator's jobs that it has not confirmed, oldest first; not the cancelled."""
        query = (
            select(jobs.c.uuid, jobs.c.given_to)
            .where(jobs.c.validator == validator, *_UNCONFIRMED)
            .order_by(jobs.c.created_us, jobs.c.uuid)
        )
        async with self._database.read() as connection:
            return [Unconfirmed(row.uuid, row.given_to) for row in await connection.execute(query)]

    async def frame(self, uuid: str) -> str:
        """What is pushed. The job is there."""
        async with self._database.read() as connection:
            return str((await connection.execute(select(jobs.c.frame).where(jobs.c.uuid == uuid))).scalar_one())

    async def claim(self, wanted: Sequence[Unconfirmed], link: str) -> dict[str, str]:
        """Note that a link is given these jobs; the frames of those that nobody else was given meanwhile."""
        frames: dict[str, str] = {}
        for begin in range(0, len(wanted), CLAIMED_AT_ONCE):
            some = wanted[begin : begin + CLAIMED_AT_ONCE]
            frames |= await self._claim(some, link)
        return frames

    async def _claim(self, wanted: Sequence[Unconfirmed], link: str) -> dict[str, str]:
        as_seen = or_(*(_is_still(job) for job in wanted))
        claim = update(jobs).where(as_seen, *_UNCONFIRMED).values(given_to=link)
        async with self._database.begin() as connection:
            rows = await connection.execute(claim.returning(jobs.c.uuid, jobs.c.frame))
            return {row.uuid: row.frame for row in rows}

    async def take_back(self, uuid: str, link: str) -> None:
        """Note that a job was not given to the link after all: nobody has it."""
        mine = (jobs.c.uuid == uuid, jobs.c.given_to == link, jobs.c.state == JobState.SENT.value)
        async with self._database.begin() as connection:
            await connection.execute(update(jobs).where(*mine).values(given_to=None))

    async def request_cancel(self, uuid: str, user: str, deadline: float) -> UnderWay | None:
        """Note that the user wants a job ended, at the latest at ``deadline``; None where there is no such job.

        A job that has ended is left as it is, and an earlier deadline stays. Nobody is given the job from now on
        who was not before.
        """
        own = (jobs.c.uuid == uuid, jobs.c.user == user)
        async with self._database.begin() as connection:
            await connection.execute(
                update(jobs).where(*own, jobs.c.deadline_us.is_not(None)).values(cancel_requested=True)
            )
            later = jobs.c.deadline_us > microseconds(deadline)
            await connection.execute(update(jobs).where(*own, later).values(deadline_us=microseconds(deadline)))
            row = (await connection.execute(UNDER_WAY.where(*own))).mappings().one_or_none()
        return None if row is None else under_way(row)

    async def cancelling(self, validator: str) -> list[UnderWay]:
        """This validator's jobs that are to be cancelled and have not ended, oldest first."""
        states = [state.value for state in PROGRESS]
        query = UNDER_WAY.where(jobs.c.validator == validator, jobs.c.state.in_(states))
        query = query.where(jobs.c.cancel_requested.is_(True)).order_by(jobs.c.created_us, jobs.c.uuid)
        async with self._database.read() as connection:
            return [under_way(row) for row in (await connection.execute(query)).mappings()]

    async def perhaps_running(self, validator: str, now: float) -> list[str]:
        """This validator's newest jobs that ended as cancelled and whose time, renewed once, is not over."""
        waits = func.coalesce(jobs.c.queue_limit_s, cast(USUAL_QUEUE_SECONDS, Float(53)))
        lasts_us = (jobs.c.budget_s * 2 + waits) * 1_000_000
        query = (
            select(jobs.c.uuid)
            .where(jobs.c.validator == validator, jobs.c.state == JobState.CANCELLED.value)
            .where(func.coalesce(jobs.c.ended_us, jobs.c.created_us) + lasts_us > microseconds(now))
            .order_by(jobs.c.created_us.desc(), jobs.c.uuid)
        )
        async with self._database.read() as connection:
            return list((await connection.execute(query.limit(PERHAPS_RUNNING))).scalars())


def _is_still(job: Unconfirmed) -> ColumnElement[bool]:
    given = jobs.c.given_to.is_(None) if job.given_to is None else jobs.c.given_to == job.given_to
    return (jobs.c.uuid == job.uuid) & given

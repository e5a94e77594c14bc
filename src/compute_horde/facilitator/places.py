"""Where waiting jobs stand: told by their validators, shown to their users. Only the newest place is kept."""

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Select, bindparam, or_, select, update

from compute_horde.facilitator.statuses import place_values
from compute_horde.facilitator.tables import IS_QUEUED, jobs
from compute_horde.facilitator.topics import places_topic, user_topic
from compute_horde.facilitator.validators import Link
from compute_horde.protocol.scheduling import MAX_POSITIONS, QueuedJob, QueuePlace
from compute_horde.storage.bus import Bus
from compute_horde.storage.database import Database

Place = tuple[int | None, int | None, int | None]
"""Position, length, and when the job will begin, in microseconds since 1970."""

_PLACE = (jobs.c.queue_position, jobs.c.queue_length, jobs.c.queue_starts_us)


class Places:
    """``now``: the wall clock, UNIX seconds."""

    def __init__(self, database: Database, bus: Bus, now: Callable[[], float]) -> None:
        self._database, self._bus, self._now = database, bus, now

    async def note(self, told: Sequence[QueuedJob], link: Link) -> None:
        """Keep new places of jobs that wait at this validator; what is told of others is dropped."""
        by_uuid = {job.job_uuid: job for job in told}
        async with self._database.begin() as connection:
            rows = (await connection.execute(_waiting_at(link, by_uuid))).mappings().all()
            if rows:
                changes = [_parameters(by_uuid[row["uuid"]], self._now()) for row in rows]
                await connection.execute(_CHANGE, changes)
        for user in {row["user"] for row in rows}:
            self._bus.notify(places_topic(user))
            self._bus.notify(user_topic(user))

    async def of(self, user: str) -> dict[str, Place]:
        """The user's waiting jobs whose place is known, by UUID; not more than can be shown at once."""
        query = select(jobs.c.uuid, *_PLACE).where(jobs.c.user == user, IS_QUEUED)
        known = or_(*(column.is_not(None) for column in _PLACE))
        async with self._database.read() as connection:
            rows = await connection.execute(query.where(known).limit(MAX_POSITIONS))
            return {row.uuid: tuple(row)[1:] for row in rows}

    def shown(self, place: Place) -> QueuePlace:
        """A place as it is now."""
        return queue_place(place, self._now())


def queue_place(place: Place, now: float) -> QueuePlace:
    position, length, starts_us = place
    left = None if starts_us is None else round(max(0.0, starts_us / 1_000_000 - now), 1)
    return QueuePlace(position=position, length=length, starts_in_s=left)


def _waiting_at(link: Link, uuids: Collection[str]) -> Select[tuple[str, str]]:
    query = select(jobs.c.uuid, jobs.c.user).where(jobs.c.uuid.in_(uuids), IS_QUEUED)
    query = query.where(jobs.c.validator == link.hotkey)
    if link.instance is not None:
        query = query.where(or_(jobs.c.holder.is_(None), jobs.c.holder == link.instance))
    return query


_CHANGE = (
    update(jobs)
    .where(jobs.c.uuid == bindparam("of_uuid"), IS_QUEUED)
    .values({column: bindparam(column.name) for column in _PLACE})
)


def _parameters(place: QueuedJob, now: float) -> dict[str, object]:
    return {"of_uuid": place.job_uuid, **place_values(place, now)}

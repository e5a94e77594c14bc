"""Lists of a user's jobs: by page, or on from a given job. Newest first, ties by UUID (G18)."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, tuple_

from compute_horde.facilitator.store import Row, StoredJob, UnknownJob, with_history
from compute_horde.facilitator.tables import jobs
from compute_horde.storage.database import Database


@dataclass(frozen=True)
class Chosen:
    """Which of the user's jobs. ``pending``: only those under way, or only those that have ended."""

    user: str
    tag: str | None = None
    uuids: tuple[str, ...] = ()
    pending: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """For the query; the last one matches the partial index word for word."""
        found: list[ColumnElement[bool]] = [jobs.c.user == self.user]
        if self.tag is not None:
            found.append(jobs.c.tag == self.tag)
        if self.uuids:
            found.append(jobs.c.uuid.in_(self.uuids))
        if self.pending is not None:
            ends = jobs.c.deadline_us
            found.append(ends.is_not(None) if self.pending else ends.is_(None))
        return found


@dataclass(frozen=True)
class Part:
    """Part of a list. ``count``: how many jobs match in all; ``more``: whether any follow."""

    count: int
    jobs: list[StoredJob]
    more: bool


class JobList:
    """Reads of table ``job``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, chosen: Chosen, offset: int, limit: int) -> Part:
        """The jobs from position ``offset`` on. Such a page moves on when jobs are created meanwhile."""
        return await self._part(chosen, [], offset, limit)

    async def after(self, chosen: Chosen, before: str, limit: int) -> Part:
        """The jobs older than the job ``before``, or from the newest where that is empty.

        Nothing is missed or repeated while jobs are created or end.

        :raises UnknownJob: ``before`` is not the user's.
        """
        return await self._part(chosen, [await self._older(chosen.user, before)] if before else [], 0, limit)

    async def _older(self, user: str, before: str) -> ColumnElement[bool]:
        query = select(jobs.c.created_us).where(jobs.c.uuid == before, jobs.c.user == user)
        async with self._database.read() as connection:
            created = (await connection.execute(query)).scalar()
        if created is None:
            raise UnknownJob(before)
        return tuple_(jobs.c.created_us, jobs.c.uuid) < tuple_(created, before)

    async def _part(self, chosen: Chosen, behind: Sequence[ColumnElement[bool]], offset: int, limit: int) -> Part:
        matching = chosen.conditions()
        counted = select(func.count()).select_from(jobs).where(*matching)
        newest = select(jobs).where(*matching, *behind).order_by(jobs.c.created_us.desc(), jobs.c.uuid.desc())
        async with self._database.read() as connection:
            count = (await connection.execute(counted)).scalar_one()
            if offset >= count:
                return Part(count, [], more=False)
            found: Sequence[Row] = (
                (await connection.execute(newest.offset(offset).limit(limit + 1))).mappings().all()
            )
            return Part(count, await with_history(connection, found[:limit]), more=len(found) > limit)

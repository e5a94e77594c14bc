"""Lists of a user's jobs: by page, or on from a given job. Newest first, ties by UUID (G18)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, tuple_

from compute_horde.facilitator.rows import VIEWED, Row, StoredJob, UnknownJob, with_history
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


BATCH_BYTES = 8 * 1024 * 1024
"""About so much of a list is in memory at a time; a job that is larger is there alone."""


@dataclass(frozen=True)
class Part:
    """Part of a list, its documents not yet read.

    * ``count``: how many jobs match in all; ``more``: whether any follow
    * ``batches``: UUIDs, in the order of the list, by what may be read at once
    """

    count: int
    batches: tuple[tuple[str, ...], ...]
    more: bool

    @property
    def last(self) -> str | None:
        """The last job; None where there is none."""
        return self.batches[-1][-1] if self.batches else None


def in_batches(sized: Iterable[tuple[str, int]], most: int) -> tuple[tuple[str, ...], ...]:
    """Jobs, each with its size, in batches of at most so many bytes; at least one job in each."""
    batches: list[list[str]] = []
    filled = 0
    for uuid, size in sized:
        if not batches or filled + size > most:
            batches.append([])
            filled = 0
        batches[-1].append(uuid)
        filled += size
    return tuple(tuple(batch) for batch in batches)


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

    async def load(self, uuids: Sequence[str]) -> list[StoredJob]:
        """These jobs in this order; one that was forgotten meanwhile is left out."""
        query = select(*VIEWED).where(jobs.c.uuid.in_(uuids))
        async with self._database.read() as connection:
            rows: Sequence[Row] = (await connection.execute(query)).mappings().all()
            found = {job.row["uuid"]: job for job in await with_history(connection, rows)}
        return [found[uuid] for uuid in uuids if uuid in found]

    async def _part(self, chosen: Chosen, behind: Sequence[ColumnElement[bool]], offset: int, limit: int) -> Part:
        matching = chosen.conditions()
        counted = select(func.count()).select_from(jobs).where(*matching)
        size = func.length(jobs.c.request) + jobs.c.result_bytes
        newest = select(jobs.c.uuid, size.label("size")).where(*matching, *behind)
        newest = newest.order_by(jobs.c.created_us.desc(), jobs.c.uuid.desc())
        async with self._database.read() as connection:
            count = (await connection.execute(counted)).scalar_one()
            if offset >= count:
                return Part(count, (), more=False)
            found = (await connection.execute(newest.offset(offset).limit(limit + 1))).all()
        sized = [(row.uuid, row.size) for row in found[:limit]]
        return Part(count, in_batches(sized, BATCH_BYTES), more=len(found) > limit)

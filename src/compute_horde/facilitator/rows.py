"""Jobs as the stores hand them in and out, and how their rows are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.facilitator.tables import jobs, statuses
from compute_horde.lifecycle.states import JobState

NO_METADATA = "{}"
Row = Mapping[Any, Any]
"""Columns by name."""

VIEWED = [column for column in jobs.columns if column.name != "frame"]
"""What a job is shown from: not its frame, which repeats the request and may be as large."""


class UnknownJob(LookupError):  # noqa: N818 - the domain's word
    """There is no such job, or it is not this participant's."""


class Conflict(ValueError):  # noqa: N818 - the domain's word
    """A job cannot be stored beside those that are there. The text says why, for its user."""


class ClaimedElsewhere(ValueError):  # noqa: N818 - the domain's word
    """Another instance of the validator has the job."""


@dataclass(frozen=True)
class NewJob:
    """A job that was checked and is about to be stored. ``given_to``: the link that it is about to be given to."""

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
    queue_limit_s: float | None = None
    retry_backoff_s: float | None = None
    attempts: int | None = None
    given_to: str | None = None


@dataclass(frozen=True)
class StoredJob:
    """A job's row with its history, oldest entry first. ``repetition``: the job that repeats this one."""

    row: Row
    history: tuple[Row, ...]
    repetition: str | None = None


@dataclass(frozen=True)
class Outline:
    """Where a job stands.

    * ``given_to``: the link that was given it, or that reported of it last; None: nobody was ever given it
    * ``holder``: the instance of its validator that took it, if that names itself
    """

    validator: str
    state: JobState
    given_to: str | None
    holder: str | None


@dataclass(frozen=True)
class UnderWay(Outline):
    """A job that its user or the clock may end."""

    uuid: str
    cancel_requested: bool


OUTLINE = (jobs.c.validator, jobs.c.state, jobs.c.given_to, jobs.c.holder)
UNDER_WAY = select(*OUTLINE, jobs.c.uuid, jobs.c.cancel_requested)


def outline(row: Row) -> Outline:
    return Outline(row["validator"], JobState(row["state"]), row["given_to"], row["holder"])


def under_way(row: Row) -> UnderWay:
    state = JobState(row["state"])
    return UnderWay(row["validator"], state, row["given_to"], row["holder"], row["uuid"], row["cancel_requested"])


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

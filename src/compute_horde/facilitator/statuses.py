"""One status of a job, stored: who may report it, what it changes, and until when the job then has time."""

from dataclasses import dataclass, field

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.facilitator.deadlines import Standing, Wishes, deadline_after, latest_end
from compute_horde.facilitator.rows import NO_METADATA, ClaimedElsewhere, Row, UnknownJob
from compute_horde.facilitator.tables import jobs, microseconds, statuses
from compute_horde.lifecycle.states import IllegalTransition, JobState, transition_in_attempt
from compute_horde.protocol.enums import Participant
from compute_horde.protocol.scheduling import QueueDetails, QueuePlace, Scheduling
from compute_horde.storage.database import Database
from compute_horde.storage.order import one_by_one

TRIES = 5
"""How often a report is looked at again that somebody else's came before; on SQLite none does."""
BULKY_BYTES = 4096
"""A smaller end of a job is not counted as output to be removed."""
_READ = (
    *(jobs.c.user, jobs.c.state, jobs.c.attempt, jobs.c.holder, jobs.c.deadline_us, jobs.c.cancel_requested),
    *(jobs.c.budget_s, jobs.c.queue_limit_s, jobs.c.retry_backoff_s, jobs.c.latest_us, jobs.c.created_us),
    select(func.max(statuses.c.created_us))
    .where(statuses.c.job_uuid == jobs.c.uuid)
    .scalar_subquery()
    .label("since_us"),
)


@dataclass(frozen=True)
class Reporter:
    """The validator's link that reports. ``instance``: names the validator's database; None: it does not say."""

    validator: str
    link: str
    instance: str | None = None


@dataclass(frozen=True)
class Change:
    """What was reported. ``metadata``: as JSON; ``attempt``: None where the one under way is meant.

    ``reporter``: only if the job is addressed to it (G16); None: the facilitator itself.
    """

    uuid: str
    to: JobState
    metadata: str = field(default=NO_METADATA, repr=False)
    by: Participant = Participant.VALIDATOR
    attempt: int | None = None
    queue: QueueDetails | None = None
    reporter: Reporter | None = None


@dataclass(frozen=True)
class Moved:
    """Whose job was moved on, from which state to which, and its new deadline (UNIX seconds; None: it has ended).

    ``in_stage_s``: how long it was in the state ``before``; ``age_s``: since it was created.
    """

    user: str
    deadline: float | None
    before: JobState
    state: JobState
    attempt: int
    in_stage_s: float
    age_s: float


class Repeated(IllegalTransition):
    """The job is in this state already: its validator made sure."""


def order_of(user: str) -> str:
    """By this name a user's statuses are committed one after the other, in the order of their ids."""
    return f"facilitator:{user}"


class _Stale(Exception):  # noqa: N818 - a turn of events
    """Somebody else's report came in between."""


async def move(database: Database, change: Change, now: float, clock: float) -> Moved:
    """See :meth:`JobStore.add_status`."""
    for _ in range(TRIES):
        try:
            async with database.begin() as connection:
                return await _move(connection, change, now, clock)
        except _Stale:
            continue
    raise IllegalTransition("the job has moved on meanwhile")


def first_status(uuid: str, user: str, now_us: int) -> dict[str, object]:
    return _entry(uuid, user, JobState.SENT, 1, NO_METADATA, now_us)


async def _move(connection: AsyncConnection, change: Change, now: float, clock: float) -> Moved:
    row = await _read(connection, change)
    old, attempt = JobState(row["state"]), row["attempt"]
    _check_claim(row["holder"], change.reporter)
    to, attempt = _next(old, attempt, change)
    told = change.queue.time_limit_s if change.queue else None
    deadline = deadline_after(_standing(row), to, attempt, told, clock)
    as_read = (
        jobs.c.uuid == change.uuid,
        jobs.c.state == old.value,
        jobs.c.attempt == row["attempt"],
        jobs.c.holder.is_not_distinct_from(row["holder"]),
        jobs.c.cancel_requested.is_(row["cancel_requested"]),
    )
    values = _changed(change, to, attempt, deadline, now)
    if (await connection.execute(update(jobs).where(*as_read).values(values))).rowcount != 1:
        raise _Stale
    await one_by_one(connection, order_of(row["user"]))
    entry = _entry(change.uuid, row["user"], to, attempt, change.metadata, microseconds(now))
    await connection.execute(insert(statuses).values(entry))
    created = row["created_us"] / 1e6
    since = created if row["since_us"] is None else row["since_us"] / 1e6
    in_stage, age = max(0.0, now - since), max(0.0, now - created)  # a wall clock may be set back
    return Moved(str(row["user"]), deadline, old, to, attempt, in_stage, age)


def _next(old: JobState, attempt: int, change: Change) -> tuple[JobState, int]:
    of_attempt = change.attempt or attempt
    try:
        return transition_in_attempt(old, attempt, change.to, of_attempt, change.by)
    except IllegalTransition as error:
        if (change.to, of_attempt) == (old, attempt):
            raise Repeated(str(error)) from None
        raise


async def _read(connection: AsyncConnection, change: Change) -> Row:
    query = select(*_READ).where(jobs.c.uuid == change.uuid)
    if change.reporter is not None:
        query = query.where(jobs.c.validator == change.reporter.validator)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise UnknownJob(change.uuid)
    return row


def _check_claim(holder: str | None, reporter: Reporter | None) -> None:
    if reporter and reporter.instance and holder not in (None, reporter.instance):
        raise ClaimedElsewhere(f"instance {holder} of this validator has the job")


def _standing(row: Row) -> Standing:
    wishes = Wishes(row["budget_s"], row["queue_limit_s"], row["retry_backoff_s"])
    deadline, latest = row["deadline_us"], row["latest_us"]
    if latest is None:  # stored by a release that knew of no queue
        latest = latest_end(row["created_us"] / 1e6, row["budget_s"], Scheduling()) * 1e6
    return Standing(
        state=JobState(row["state"]),
        attempt=row["attempt"],
        deadline=None if deadline is None else deadline / 1_000_000,
        latest=latest / 1_000_000,
        wishes=wishes,
        cancel_requested=row["cancel_requested"],
    )


def _changed(change: Change, to: JobState, attempt: int, deadline: float | None, now: float) -> dict[str, object]:
    values: dict[str, object] = {
        "state": to.value,
        "attempt": attempt,
        "deadline_us": None if deadline is None else microseconds(deadline),
        **place_values(change.queue, now),
    }
    if change.reporter:
        values["given_to"] = change.reporter.link
        if change.reporter.instance:
            values["holder"] = change.reporter.instance
    if to.is_terminal:
        size = len(change.metadata.encode())
        kept = size if size > BULKY_BYTES else 0
        values |= {"ended_us": microseconds(now), "result_bytes": kept, "frame": ""}  # it is pushed no more
    return values


def place_values(place: QueuePlace | None, now: float) -> dict[str, object]:
    """The columns of a place in the queue; all null without one."""
    starts = place.starts_in_s if place else None
    return {
        "queue_position": place.position if place else None,
        "queue_length": place.length if place else None,
        "queue_starts_us": None if starts is None else microseconds(now + starts),
    }


def _entry(uuid: str, user: str, state: JobState, attempt: int, metadata: str, now_us: int) -> dict[str, object]:
    return {
        "job_uuid": uuid,
        "user": user,
        "status": state.value,
        "metadata": metadata,
        "created_us": now_us,
        "attempt": attempt,
    }

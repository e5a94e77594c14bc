"""Where a job stands, in a few words: ``queued, 3 of 7, starts in about 2 min``."""

import datetime as dt

from compute_horde_sdk.v1 import ComputeHordeJob, JobAttempt, QueuePlace

TRUSTED_MINER = "0" * 48
"""The hotkey that the horde gives for the validator's own miner."""

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def age(since: dt.timedelta) -> str:
    """In the largest unit of which there is one: ``3 min``."""
    return duration(since.total_seconds())


def duration(seconds: float) -> str:
    """In the largest unit of which there is one: ``3 min``."""
    whole = max(int(seconds), 0)
    size, unit = next(((size, unit) for size, unit in _UNITS if whole >= size), _UNITS[-1])
    return f"{whole // size} {unit}"


def progress(job: ComputeHordeJob) -> str:
    """Its status; its place while it waits; the attempt, when it is not the first."""
    words = [job.status.value]
    if job.queue is not None and (where := place(job.queue)):
        words.append(where)
    if job.attempt > 1:
        words.append(attempt(job) + _failed_before(job))
    return ", ".join(words)


def place(where: QueuePlace) -> str:
    """``3 of 7, starts in about 2 min``; empty where nothing is known."""
    words = []
    if where.position is not None:
        words.append(f"{where.position} of {where.length}" if where.length else f"number {where.position}")
    if where.starts_in is not None:
        words.append(f"starts in about {duration(where.starts_in)}")
    return ", ".join(words)


def attempt(job: ComputeHordeJob) -> str:
    """``attempt 2 of 3``."""
    return f"attempt {job.attempt}" + (f" of {job.attempts}" if job.attempts else "")


def miner_name(hotkey: str | None) -> str:
    """Who a miner is, for a person."""
    return "the trusted miner" if hotkey == TRUSTED_MINER else hotkey or "unknown"


def attempt_line(one: JobAttempt) -> str:
    """``1 by 5F...: horde_failed (executor_disconnected): the executor was lost``."""
    outcome = one.outcome.value if one.outcome else "under way"
    why = f" ({one.error.code}): {one.error.message}" if one.error else ""
    return f"{one.number} by {miner_name(one.miner_hotkey)}: {outcome}{why}"


def _failed_before(job: ComputeHordeJob) -> str:
    failed = [one for one in job.attempts_made if one.error is not None and one.number < job.attempt]
    if not failed or failed[-1].error is None:
        return ""
    return f" (the {_ORDINALS[min(failed[-1].number, len(_ORDINALS)) - 1]} failed: {failed[-1].error.code})"

"""A job's history: what came when, and the attempts that it tells of. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from compute_horde_sdk._internal.exceptions import (
    ComputeHordeHordeFailure,
    ComputeHordeJobError,
    ComputeHordeJobFailure,
    ComputeHordeJobRejection,
)
from compute_horde_sdk._internal.models import (
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    JobAttempt,
)

History = Sequence[ComputeHordeJobStatusEntry]

BEGUN = frozenset(
    {
        ComputeHordeJobStatus.ACCEPTED,
        ComputeHordeJobStatus.EXECUTOR_READY,
        ComputeHordeJobStatus.VOLUMES_READY,
        ComputeHordeJobStatus.STREAMING_READY,
        ComputeHordeJobStatus.EXECUTION_DONE,
        ComputeHordeJobStatus.COMPLETED,
        ComputeHordeJobStatus.FAILED,
    }
)
"""What only an attempt that a miner accepted comes to; the other ends come to waiting jobs as well."""

_OUTCOMES: Mapping[type[ComputeHordeJobError], ComputeHordeJobStatus] = MappingProxyType(
    {
        ComputeHordeHordeFailure: ComputeHordeJobStatus.HORDE_FAILED,
        ComputeHordeJobFailure: ComputeHordeJobStatus.FAILED,
        ComputeHordeJobRejection: ComputeHordeJobStatus.REJECTED,
    }
)


def merged(history: History, more: Iterable[ComputeHordeJobStatusEntry]) -> list[ComputeHordeJobStatusEntry]:
    """Both, without repetitions, in the order in which they came; each entry knows its attempt and miner."""
    found = list(history)
    seen = {(entry.status, entry.created_at) for entry in history}
    for entry in more:
        if (entry.status, entry.created_at) not in seen:
            seen.add((entry.status, entry.created_at))
            found.append(_placed(entry, found[-1] if found else None))
    return found


def _placed(
    entry: ComputeHordeJobStatusEntry, before: ComputeHordeJobStatusEntry | None
) -> ComputeHordeJobStatusEntry:
    """The entry, with what only the first entries of an attempt say."""
    if before is None or before.attempt is None or entry.attempt not in (None, before.attempt):
        return entry
    return replace(entry, attempt=before.attempt, miner_hotkey=entry.miner_hotkey or before.miner_hotkey)


def latest_attempt(history: History) -> int | None:
    """The attempt that was told of last: under way, made next, or made last. None where none was."""
    return next((entry.attempt for entry in reversed(history) if entry.attempt is not None), None)


def begun_attempt(history: History) -> int:
    """The last attempt that a miner accepted; 1 while there is none."""
    return max((entry.attempt or 1 for entry in history if entry.status in BEGUN), default=1)


def of_latest_attempt(history: History) -> list[ComputeHordeJobStatusEntry]:
    """The entries that came since the latest attempt began, or began to be waited for."""
    number = latest_attempt(history)
    return [entry for entry in history if entry.attempt == number]


def attempts_in(history: History) -> list[JobAttempt]:
    """The attempts made, the one under way included. Where none is told of there was one at most."""
    found: dict[int, JobAttempt] = {}
    for entry in history:
        number = entry.attempt or 1
        if entry.status is ComputeHordeJobStatus.QUEUED:
            _close(found, number - 1, entry.error)
        elif entry.status in BEGUN or number in found:
            known = found.setdefault(number, JobAttempt(number))
            found[number] = replace(known, miner_hotkey=entry.miner_hotkey or known.miner_hotkey)
            if known.outcome is None and not entry.status.is_in_progress():
                found[number] = replace(found[number], outcome=entry.status, error=entry.error)
    return [found[number] for number in sorted(found)]


def _close(found: dict[int, JobAttempt], number: int, error: ComputeHordeJobError | None) -> None:
    """Note why an attempt failed, after which the job waits for the next one."""
    if error is not None and number >= 1:
        outcome = _OUTCOMES.get(type(error), ComputeHordeJobStatus.HORDE_FAILED)
        found[number] = replace(found.get(number, JobAttempt(number)), outcome=outcome, error=error)

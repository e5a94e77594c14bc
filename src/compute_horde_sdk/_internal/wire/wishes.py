"""How long a job may wait and how often it is tried: checked, and never asked of whoever cannot do it."""

from collections.abc import Mapping
from typing import Any

from compute_horde.protocol.scheduling import (
    MAX_ATTEMPTS,
    MAX_BACKOFF_SECONDS,
    MAX_PRIORITY,
    MAX_QUEUE_SECONDS,
)
from compute_horde_sdk._internal.exceptions import ComputeHordeUnsupportedError, ComputeHordeValidationError
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec

WISHES = frozenset({"queue_time_limit", "attempts", "retry_backoff", "priority"})
"""Members of the body that only a facilitator with the extension ``queue`` is sent."""


def wishes(spec: ComputeHordeJobSpec) -> dict[str, Any]:
    """The members of the body, those that are set.

    :raises ComputeHordeValidationError: names the first that is wrong, and what it may be.
    """
    given = {
        "queue_time_limit": _whole(spec.queue_time_limit_sec, "queue_time_limit_sec", 0, MAX_QUEUE_SECONDS),
        "attempts": _whole(spec.attempts, "attempts", 1, MAX_ATTEMPTS),
        "retry_backoff": _seconds(spec.retry_backoff_sec, "retry_backoff_sec", MAX_BACKOFF_SECONDS),
        "priority": _whole(spec.priority, "priority", -MAX_PRIORITY, MAX_PRIORITY) or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def without_wishes(body: Mapping[str, Any], spec: ComputeHordeJobSpec) -> dict[str, Any]:
    """The body for a facilitator that lets no job wait: there each is tried once, and ends where nothing is free.

    :raises ComputeHordeUnsupportedError: the spec asks for anything else; it names the first such wish.
    """
    wanted = {
        "queue_time_limit_sec": bool(spec.queue_time_limit_sec),
        "attempts": spec.attempts not in (None, 1),
        "retry_backoff_sec": spec.retry_backoff_sec is not None and spec.attempts != 1,
        "priority": bool(spec.priority),
    }
    for name in (name for name, is_wanted in wanted.items() if is_wanted):
        raise ComputeHordeUnsupportedError(
            f"the facilitator cannot let jobs wait or try them again, so it cannot keep {name}",
            hint=f"Leave {name} out; run_until_complete() sends a job again.",
        )
    return {name: value for name, value in body.items() if name not in WISHES}


def _whole(value: object, field: str, least: int, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ComputeHordeValidationError(f"{field} must be a whole number, {least} to {most}", field=field)
    return value


def _seconds(value: object, field: str, most: int) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:  # so no NaN
        raise ComputeHordeValidationError(f"{field} must be a number of seconds, 0 to {most}", field=field)
    return value

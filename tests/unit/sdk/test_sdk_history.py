"""What a history tells of its attempts."""

import datetime as dt
from typing import Any

import pytest

from compute_horde_sdk._internal.exceptions import (
    ComputeHordeHordeFailure,
    ComputeHordeJobError,
    ComputeHordeJobFailure,
    ComputeHordeJobRejection,
)
from compute_horde_sdk._internal.history import (
    attempts_in,
    begun_attempt,
    latest_attempt,
    merged,
    of_latest_attempt,
)
from compute_horde_sdk._internal.models import (
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    JobAttempt,
)

START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
LOST = ComputeHordeHordeFailure("lost", code="executor_disconnected")
OWN = ComputeHordeJobFailure("exit 1", code="nonzero_exit")
REFUSED = ComputeHordeJobRejection("full", code="busy")


def history(*told: tuple[Any, ...]) -> list[ComputeHordeJobStatusEntry]:
    """From (status, attempt, miner, error), the later ones left out where they are not told."""
    made = []
    for number, (status, *more) in enumerate(told):
        attempt, miner, error = (*more, None, None, None)[:3]
        moment = START + dt.timedelta(seconds=number)
        made.append(
            ComputeHordeJobStatusEntry(
                moment, ComputeHordeJobStatus(status), attempt=attempt, miner_hotkey=miner, error=error
            )
        )
    return merged([], made)


RETRIED = history(
    ("sent",),
    ("received",),
    ("queued", 1),
    ("accepted", 1, "5A"),
    ("executor_ready",),
    ("queued", 2, None, LOST),
    ("accepted", 2, "5B"),
    ("execution_done",),
    ("completed", 2),
)


def test_later_entries_of_an_attempt_inherit_it() -> None:
    assert [(entry.attempt, entry.miner_hotkey) for entry in RETRIED] == [
        (None, None),
        (None, None),
        (1, None),
        (1, "5A"),
        (1, "5A"),
        (2, None),
        (2, "5B"),
        (2, "5B"),
        (2, "5B"),
    ]


def test_it_does_not_matter_in_how_many_pieces_it_comes() -> None:
    plain = [ComputeHordeJobStatusEntry(e.created_at, e.status, error=e.error) for e in RETRIED[:2]]
    assert merged(merged(plain, RETRIED[2:6]), RETRIED[4:]) == RETRIED


def test_the_attempts_that_were_made() -> None:
    first, second = attempts_in(RETRIED)
    assert first == JobAttempt(1, "5A", ComputeHordeJobStatus.HORDE_FAILED)
    assert first.error is LOST
    assert second == JobAttempt(2, "5B", ComputeHordeJobStatus.COMPLETED)
    assert (latest_attempt(RETRIED), begun_attempt(RETRIED)) == (2, 2)
    assert [entry.status for entry in of_latest_attempt(RETRIED)] == [
        "queued",
        "accepted",
        "execution_done",
        "completed",
    ]


@pytest.mark.parametrize(("length", "made", "latest", "begun"), [(3, [], 1, 1), (4, [1], 1, 1), (6, [1], 2, 1)])
def test_a_job_under_way(length: int, made: list[int], latest: int, begun: int) -> None:
    part = RETRIED[:length]
    assert [one.number for one in attempts_in(part)] == made
    assert (latest_attempt(part), begun_attempt(part)) == (latest, begun)


def test_the_one_under_way_has_no_outcome() -> None:
    assert attempts_in(RETRIED[:7])[-1] == JobAttempt(2, "5B")


@pytest.mark.parametrize("end", ["cancelled", "rejected", "horde_failed"])
def test_a_job_that_ends_while_it_waits_has_made_no_further_attempt(end: str) -> None:
    waits = [("queued", 2, None, LOST), (end, 2, None, REFUSED)]
    assert [one.number for one in attempts_in(history(("accepted", 1, "5A"), *waits))] == [1]
    assert attempts_in(history(("received",), ("queued", 1), (end, 1))) == []


def test_the_end_may_name_the_attempt_that_failed_before() -> None:
    """No miner was left for the next one: the job ends with the last failure, which the queue told already."""
    found = history(("accepted", 1, "5A"), ("queued", 2, None, LOST), ("horde_failed", 1, None, REFUSED))
    (only,) = attempts_in(found)
    assert (only.outcome, only.error) == ("horde_failed", LOST)
    assert latest_attempt(found) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(LOST, "horde_failed"), (OWN, "failed"), (REFUSED, "rejected"), (ComputeHordeJobError("?"), "horde_failed")],
)
def test_how_an_earlier_attempt_ended(error: ComputeHordeJobError, outcome: str) -> None:
    (only,) = attempts_in(history(("queued", 2, None, error)))
    assert (only.number, only.outcome, only.error) == (1, outcome, error)


def test_a_facilitator_that_tells_of_no_attempts() -> None:
    found = history(("sent",), ("received",), ("accepted",), ("failed", None, None, OWN))
    (only,) = attempts_in(found)
    assert (only.number, only.miner_hotkey, only.outcome, only.error) == (1, None, "failed", OWN)
    assert (latest_attempt(found), begun_attempt(found)) == (None, 1)
    assert of_latest_attempt(found) == found
    assert attempts_in(history(("sent",), ("rejected", None, None, REFUSED))) == []

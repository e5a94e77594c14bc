"""When a job under way is given up: its budget, its waiting, and the bound that no report moves."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_horde.facilitator.clock import steady_clock
from compute_horde.facilitator.deadlines import Standing, Wishes, deadline_after, latest_end
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.scheduling import MAX_QUEUE_SECONDS, Scheduling

WISHES = Wishes(budget_s=100, queue_limit_s=50, retry_backoff_s=4)
SENT = Standing(JobState.SENT, 1, deadline=100, latest=10_000, wishes=WISHES)


def standing(state: JobState, attempt: int = 1, latest: float = 10_000) -> Standing:
    return replace(SENT, state=state, attempt=attempt, latest=latest)


@pytest.mark.parametrize(
    ("job", "to", "attempt", "left", "expected"),
    [
        (SENT, JobState.RECEIVED, 1, None, 1100),
        (standing(JobState.RECEIVED), JobState.ACCEPTED, 1, None, 100),
        (standing(JobState.RECEIVED), JobState.QUEUED, 1, 30.0, 1130),
        (standing(JobState.RECEIVED), JobState.QUEUED, 1, 3000.0, 1150),  # the wish bounds what is told
        (standing(JobState.RECEIVED), JobState.QUEUED, 1, None, 1150),
        (standing(JobState.QUEUED), JobState.ACCEPTED, 1, None, 1100),
        (standing(JobState.ACCEPTED), JobState.QUEUED, 2, 30.0, 1134),  # with the pause before it
        (standing(JobState.ACCEPTED, 2), JobState.QUEUED, 3, 30.0, 1138),
        (standing(JobState.EXECUTION_DONE), JobState.ACCEPTED, 2, None, 1100),
        (standing(JobState.ACCEPTED), JobState.COMPLETED, 1, None, None),
        (standing(JobState.RECEIVED, latest=1010), JobState.QUEUED, 1, 30.0, 1010),
    ],
)
def test_a_job_has_time(
    job: Standing, to: JobState, attempt: int, left: float | None, expected: float | None
) -> None:
    assert deadline_after(job, to, attempt, left, 1000) == expected


def test_a_job_that_is_being_cancelled_gets_no_more_time() -> None:
    job = replace(standing(JobState.SENT), cancel_requested=True)
    assert deadline_after(job, JobState.QUEUED, 1, 30.0, 1000) == 100


def test_without_a_wish_the_longest_waiting_is_allowed() -> None:
    wishes = Wishes(budget_s=100)
    assert wishes.waiting(None) == wishes.waiting(10**9) == MAX_QUEUE_SECONDS
    assert (wishes.pause(1), wishes.pause(2), wishes.pause(3)) == (0, 60, 120)


@given(st.lists(st.tuples(st.sampled_from(["queued", "accepted"]), st.floats(0, 10**9), st.floats(0, 10**6))))
def test_no_reports_make_a_job_immortal(reports: list[tuple[str, float, float]]) -> None:
    wishes = Scheduling(queue_time_limit=50, attempts=3, retry_backoff=4)
    job = replace(SENT, latest=latest_end(0, 100, wishes))
    now = 0.0
    for attempt, (state, left, passes) in enumerate(reports, 1):
        now += passes
        deadline = deadline_after(job, JobState(state), attempt, left, now)
        assert deadline is not None
        assert deadline <= 100 + 50 + 3 * 100 + 4 + 8
        job = replace(job, state=JobState(state), attempt=attempt, deadline=deadline)


def test_the_steady_clock_does_not_follow_the_wall() -> None:
    passed, wall = [50.0], [1_000.0]
    clock = steady_clock(lambda: wall[0], lambda: passed[0])
    wall[0] = 5.0
    passed[0] += 7
    assert clock() == 1_007

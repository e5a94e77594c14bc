"""Whose turn it is: fair between users, by priority, and the same however the jobs are listed."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_horde.validator.queue.order import Waiting, in_order

USERS = ("ann", "bea", "cid", "dan")


def job(name: str, user: str = "ann", priority: int = 0, since: float = 0) -> Waiting:
    return Waiting(name, user, priority, since)


def names(waiting: Sequence[Waiting], running: dict[str, int] | None = None, max_priority: int = 0) -> str:
    return " ".join(job.job_uuid for job in in_order(waiting, running or {}, max_priority))


jobs = st.lists(
    st.builds(
        Waiting,
        job_uuid=st.uuids().map(str),
        user=st.sampled_from(USERS),
        priority=st.integers(-3, 3),
        since=st.integers(0, 9).map(float),
    ),
    max_size=25,
    unique_by=lambda job: job.job_uuid,
)
runnings = st.dictionaries(st.sampled_from((*USERS, "eve")), st.integers(0, 5))
caps = st.integers(-2, 4)


@pytest.mark.parametrize(
    ("waiting", "running", "cap", "expected"),
    [
        ([], {}, 0, ""),
        ([job("b", since=2), job("a", since=1)], {}, 0, "a b"),
        ([job("b", since=1), job("a", since=1)], {}, 0, "a b"),  # by UUID in the end
        ([job("a1"), job("a2"), job("b", "bea", since=9)], {}, 0, "a1 b a2"),  # users take turns
        ([job("a"), job("b", "bea", since=9)], {"ann": 1}, 0, "b a"),  # who runs something comes later
        ([job("a"), job("b", "bea", priority=9, since=9)], {}, 0, "a b"),  # a priority is one's own affair
        ([job("a"), job("b", "bea", priority=9, since=9)], {}, 5, "b a"),  # unless the operator lets it count
        ([job("a", priority=5), job("b", "bea", priority=9, since=9)], {}, 5, "a b"),  # up to the limit
        ([job("a", priority=-1), job("b", "bea", since=9)], {}, 0, "b a"),  # others may always go first
        ([job("a1", since=1), job("a2", priority=1, since=2)], {}, 0, "a2 a1"),  # within a user
        # the jobs placed in a higher tier count in the next one
        ([job("a1", priority=1), job("a2"), job("b", "bea", since=9)], {}, 1, "a1 b a2"),
    ],
)
def test_the_order(waiting: list[Waiting], running: dict[str, int], cap: int, expected: str) -> None:
    assert names(waiting, running, cap) == expected


def test_nothing_that_it_is_given_changes() -> None:
    running = {"ann": 1}
    in_order([job("a"), job("b", "bea")], running, 0)
    assert running == {"ann": 1}


@given(jobs, runnings, caps, st.randoms())
def test_every_job_once_however_they_are_listed(
    waiting: list[Waiting], running: dict[str, int], cap: int, dice: random.Random
) -> None:
    shuffled = list(waiting)
    dice.shuffle(shuffled)
    order = in_order(waiting, running, cap)
    assert sorted(order, key=lambda job: job.job_uuid) == sorted(waiting, key=lambda job: job.job_uuid)
    assert in_order(shuffled, running, cap) == order


@given(jobs, runnings, caps)
def test_higher_priorities_first_up_to_the_limit(
    waiting: list[Waiting], running: dict[str, int], cap: int
) -> None:
    order = in_order(waiting, running, cap)
    counted = [min(job.priority, cap) for job in order]
    assert counted == sorted(counted, reverse=True)
    for user in USERS:
        own = [job for job in order if job.user == user]
        assert own == sorted(own, key=lambda job: (-job.priority, job.since, job.job_uuid))


@given(jobs, runnings)
def test_no_starvation_among_equals(waiting: list[Waiting], running: dict[str, int]) -> None:
    """Next is always a user who has fewest, so that no number of jobs puts off another user's first one."""
    order = in_order([replace(job, priority=0) for job in waiting], running, 0)
    has = Counter(running)
    for place, job in enumerate(order):
        assert has[job.user] == min(has[other.user] for other in order[place:])
        has[job.user] += 1


@given(jobs, runnings, caps)
def test_the_others_keep_their_order_when_the_first_one_begins(
    waiting: list[Waiting], running: dict[str, int], cap: int
) -> None:
    while order := in_order(waiting, running, cap):
        first, *others = order
        waiting = [job for job in waiting if job != first]
        running = {**running, first.user: running.get(first.user, 0) + 1}
        assert in_order(waiting, running, cap) == others


@given(jobs, runnings, caps, st.integers(-3, 3))
def test_the_others_keep_their_order_when_another_user_comes(
    waiting: list[Waiting], running: dict[str, int], cap: int, priority: int
) -> None:
    new = job("new", "zoe", priority, since=5)
    assert [job for job in in_order([*waiting, new], running, cap) if job != new] == in_order(
        waiting, running, cap
    )


def test_a_flood_holds_up_nobody_for_long() -> None:
    """One executor; a user who never stops; another one's job comes after at most one of the flood's."""
    flood = [job(f"f{n:04}", "eve", priority=9, since=n) for n in range(1000)]
    quiet = [job("q1", "ann", since=5000), job("q2", "ann", since=5001)]
    assert names([*flood, *quiet], {"eve": 1}).split()[:4] == ["q1", "f0000", "q2", "f0001"]


class Counted(float):
    """A time that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float.__lt__(self, other)

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return float.__eq__(self, other)

    __hash__ = float.__hash__


@pytest.mark.parametrize("users", [1, 100, 10_000])
def test_ten_thousand_jobs_need_few_comparisons(users: int) -> None:
    dice, n = random.Random(7), 10_000
    waiting = [job(str(i), f"u{i % users}", since=Counted(dice.random())) for i in range(n)]
    Counted.comparisons = 0
    in_order(waiting, {}, 0)
    assert 0 < Counted.comparisons < 6 * n * math.log2(n)

"""When a job will probably begin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_horde.protocol.enums import ExecutorClass
from compute_horde.validator.queue.estimate import REMEMBERED, RunTimes, starts_in

TEST, GPU = ExecutorClass.always_on__test, ExecutorClass.always_on__gpu_24gb
seconds = st.floats(0, 1e5)


@pytest.mark.parametrize(
    ("order", "slots", "left", "takes", "expected"),
    [
        ("", 2, [], 10, {}),
        ("ab", 0, [5], 10, {"a": None, "b": None}),
        ("abc", 2, [], 10, {"a": 0, "b": 0, "c": 10}),
        ("abc", 2, [4, 7], 10, {"a": 4, "b": 7, "c": 14}),
        ("ab", 1, [-3], 10, {"a": 0, "b": 10}),  # longer at work than expected: it may end at any moment
        ("ab", 1, [2, 5], 10, {"a": 5, "b": 15}),  # an executor was taken away: the first end frees none
        ("ab", 1, [1], -5, {"a": 1, "b": 1}),
    ],
)
def test_starts(
    order: str, slots: int, left: list[float], takes: float, expected: dict[str, float | None]
) -> None:
    assert starts_in(order, slots, left, takes) == expected


@given(st.integers(1, 40), st.integers(1, 8), st.lists(seconds, max_size=8), seconds)
def test_nobody_begins_before_who_is_ahead_and_more_executors_do_no_harm(
    waiting: int, slots: int, left: list[float], takes: float
) -> None:
    order = [str(n) for n in range(waiting)]
    starts = [start or 0.0 for start in starts_in(order, slots, left, takes).values()]
    sooner = [start or 0.0 for start in starts_in(order, slots + 1, left, takes).values()]
    assert starts == sorted(starts)
    assert len(left) > slots or all(less <= more for less, more in zip(sooner, starts, strict=True))


def test_run_times_are_those_of_the_class_or_the_limits() -> None:
    times = RunTimes()
    assert times.expected(TEST, 60) == 60
    times.note(GPU, 5)
    assert (times.expected(TEST, 60), times.expected(GPU, 60)) == (60, 5)


def test_one_endless_job_changes_little() -> None:
    times = RunTimes()
    for took in (10, 11, 9, 100_000, 10):
        times.note(TEST, took)
    assert times.expected(TEST, 60) == 10


def test_only_the_last_ones_count_and_no_time_is_negative() -> None:
    times = RunTimes()
    for took in [1000.0] * REMEMBERED + [-1.0] * REMEMBERED:
        times.note(TEST, took)
    assert times.expected(TEST, 60) == 0

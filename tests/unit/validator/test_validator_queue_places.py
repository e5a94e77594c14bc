"""Which places are reported: what is news, in chunks, and nothing of jobs that have ended."""

import pytest

from compute_horde.protocol.scheduling import MAX_POSITIONS, QueuedJob
from compute_horde.validator.queue.places import Places


def place(
    position: int | None = 1, length: int | None = 1, starts: float | None = None, job: str = "a"
) -> QueuedJob:
    return QueuedJob(job_uuid=job, position=position, length=length, starts_in_s=starts)


@pytest.mark.parametrize(
    ("before", "after", "is_news"),
    [
        (place(), place(), False),
        (place(2, 2), place(1, 2), True),
        (place(1, 1), place(1, 2), True),
        (place(20, 20), place(19, 20), True),
        (place(41, 100), place(40, 100), False),  # far behind, single steps are not news
        (place(40, 100), place(38, 100), True),
        (place(1, 1000), place(1, 1049), False),
        (place(1, 1000), place(1, 1050), True),
        (place(None, None), place(1, 1), True),
        (place(1, 1), place(None, None), True),
        (place(None, None), place(None, None), False),
        (place(starts=None), place(starts=4), True),
        (place(starts=4), place(starts=None), True),
        (place(starts=4), place(starts=9), False),  # 5 s are not enough
        (place(starts=4), place(starts=9.6), True),
        (place(starts=100), place(starts=81), False),  # nor is a fifth
        (place(starts=100), place(starts=79), True),
    ],
)
def test_what_is_news(before: QueuedJob, after: QueuedJob, is_news: bool) -> None:
    places = Places()
    assert places.changed([before]) == [[before]]
    assert bool(places.changed([after])) is is_news


def test_small_steps_add_up_to_news() -> None:
    places = Places()
    reported = [places.changed([place(starts=100.0 - n)]) for n in range(60)]
    assert [n for n, news in enumerate(reported) if news] == [0, 21, 37, 50]


def test_whole_seconds_are_told() -> None:
    assert Places().changed([place(starts=12.6)]) == [[place(starts=13)]]


def test_many_jobs_come_in_chunks_and_only_those_that_changed() -> None:
    places = Places()
    jobs = [place(n + 1, 2000, job=str(n)) for n in range(MAX_POSITIONS * 2 + 1)]
    assert [len(chunk) for chunk in places.changed(jobs)] == [MAX_POSITIONS, MAX_POSITIONS, 1]
    assert places.changed(jobs) == []
    jobs[7] = place(1, 2000, job="7")
    assert places.changed(jobs) == [[jobs[7]]]


def test_a_job_that_waits_no_more_is_forgotten() -> None:
    places = Places()
    places.changed([place(job="a"), place(job="b")])
    assert places.changed([place(job="b")]) == []
    assert places.changed([place(job="a"), place(job="b")]) == [[place(job="a")]]


def test_everything_is_news_to_somebody_new() -> None:
    places = Places()
    places.changed([place()])
    places.forget()
    assert places.changed([place()]) == [[place()]]

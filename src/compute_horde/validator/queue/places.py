"""Which places of waiting jobs are news. What changes little is not sent again."""

from collections.abc import Iterable, Sequence

from compute_horde.protocol.scheduling import MAX_POSITIONS, QueuedJob

NEWS_SHARE = 0.05
"""A move by less than this part of a position is no news: far behind, not every step of thousands is sent."""

NEWS_SECONDS = 5.0
NEWS_ESTIMATE_SHARE = 0.2
"""An estimate is news when it moved by more than both."""


class Places:
    """What was reported of each waiting job. It holds no more jobs than wait."""

    def __init__(self) -> None:
        self._told: dict[str, QueuedJob] = {}

    def changed(self, now: Sequence[QueuedJob]) -> list[list[QueuedJob]]:
        """What to report, in chunks of :data:`MAX_POSITIONS`. ``now``: all that wait; other jobs are forgotten."""
        rounded = [_rounded(job) for job in now]
        news = [job for job in rounded if _is_news(self._told.get(job.job_uuid), job)]
        self._told = {job.job_uuid: self._told.get(job.job_uuid, job) for job in rounded}
        self._told.update((job.job_uuid, job) for job in news)
        return list(_chunks(news))

    def forget(self) -> None:
        """Whoever was told is gone: everything is news again."""
        self._told.clear()


def _rounded(job: QueuedJob) -> QueuedJob:
    """Whole seconds: more would promise too much."""
    if job.starts_in_s is None:
        return job
    return job.model_copy(update={"starts_in_s": float(round(job.starts_in_s))})


def _is_news(told: QueuedJob | None, now: QueuedJob) -> bool:
    if told is None:
        return True
    places = (told.position, now.position), (told.length, now.length)
    return any(_has_moved(*pair) for pair in places) or _is_other_time(told.starts_in_s, now.starts_in_s)


def _has_moved(told: int | None, now: int | None) -> bool:
    if told is None or now is None:
        return told is not now
    return abs(now - told) >= max(1.0, NEWS_SHARE * told)


def _is_other_time(told: float | None, now: float | None) -> bool:
    if told is None or now is None:
        return told is not now
    return abs(now - told) > max(NEWS_SECONDS, NEWS_ESTIMATE_SHARE * told)


def _chunks(jobs: Sequence[QueuedJob]) -> Iterable[list[QueuedJob]]:
    return (list(jobs[start : start + MAX_POSITIONS]) for start in range(0, len(jobs), MAX_POSITIONS))

"""Whose turn it is. Pure: the same jobs give the same order, however they are listed."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Waiting:
    """One waiting job. ``user``: who is treated fairly; ``since``: when it began to wait, in UNIX seconds."""

    job_uuid: str
    user: str
    priority: int
    since: float


def in_order(waiting: Iterable[Waiting], running: Mapping[str, int], max_priority: int) -> list[Waiting]:
    """All jobs in the order in which they should begin; n log n comparisons.

    * between users a priority counts up to ``max_priority``: with 0, a user can let others go first and no more
    * among equals, next is the user who has the fewest jobs, those ``running`` and those placed before added up;
      of two such users the one whose next job has waited longer
    * within a user by the job's own priority, then by who waits longest, then by UUID

    So the others' order stays as it is when the first job begins to run, and when another user's job is added; and
    no user's number of jobs puts off somebody else's first one.
    """
    has = defaultdict(int, running)

    def tier(job: Waiting) -> int:
        return -min(job.priority, max_priority)

    by_tier = sorted(waiting, key=lambda job: (tier(job), -job.priority, job.since, job.job_uuid))
    return [job for _, equals in groupby(by_tier, tier) for job in _fairly(equals, has)]


def _fairly(jobs: Iterable[Waiting], has: dict[str, int]) -> Iterator[Waiting]:
    """Jobs that are sorted within each user, so that users take turns. ``has`` counts on."""
    lines: dict[str, list[Waiting]] = defaultdict(list)
    for job in jobs:
        lines[job.user].append(job)
    coming = {user: iter(line) for user, line in lines.items()}
    turns = [_turn(next(line), has) for line in coming.values()]
    heapq.heapify(turns)
    while turns:
        *_, job = turns[0]
        has[job.user] += 1
        if (following := next(coming[job.user], None)) is None:
            heapq.heappop(turns)
        else:
            heapq.heapreplace(turns, _turn(following, has))
        yield job


def _turn(job: Waiting, has: Mapping[str, int]) -> tuple[int, float, str, Waiting]:
    return has[job.user], job.since, job.job_uuid, job

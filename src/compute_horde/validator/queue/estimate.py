"""When waiting jobs will probably begin. Pure, and no more than a guess: run times are those of the past."""

import heapq
from collections import defaultdict, deque
from collections.abc import Sequence
from statistics import median

from compute_horde.protocol.enums import ExecutorClass

REMEMBERED = 20
"""Run times of each class that count: enough for a median, few enough to follow a change of jobs."""


class RunTimes:
    """How long the last jobs of each class held an executor. The median: one endless job changes little."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._last: dict[ExecutorClass, deque[float]] = defaultdict(lambda: deque(maxlen=remembered))

    def note(self, executor_class: ExecutorClass, seconds: float) -> None:
        """A job of this class has ended after so long."""
        self._last[executor_class].append(max(0.0, seconds))

    def expected(self, executor_class: ExecutorClass, fallback: float) -> float:
        """Seconds that a job of this class will probably take; ``fallback`` while none has ended."""
        last = self._last.get(executor_class)
        return median(last) if last else fallback


def starts_in(
    order: Sequence[str], slots: int, running_left: Sequence[float], expected_s: float
) -> dict[str, float | None]:
    """Seconds until each job of ``order`` begins; None for all where there are no executors.

    ``slots`` executors; ``running_left``: seconds that each job at work still needs. Where more are at work than
    there are executors, those that end first are not followed by others.
    """
    if slots <= 0:
        return dict.fromkeys(order)
    free_at = sorted((max(0.0, left) for left in running_left), reverse=True)[:slots]
    free_at += [0.0] * (slots - len(free_at))
    heapq.heapify(free_at)
    starts: dict[str, float | None] = {}
    for job in order:
        starts[job] = free_at[0]
        heapq.heapreplace(free_at, free_at[0] + max(0.0, expected_s))
    return starts

"""How long to wait before trying again."""

import random
from collections.abc import Iterator
from itertools import chain, repeat


def backoff(first_s: float = 0.2, cap_s: float = 10, jitter: float = 0.2) -> Iterator[float]:
    """Endless pauses in seconds: doubling from ``first_s`` up to ``cap_s``, each longer by up to ``jitter``."""
    pause = first_s
    while True:
        yield pause * (1 + random.uniform(0, jitter))  # noqa: S311 - spreads load, keeps no secret
        pause = min(pause * 2, cap_s)


def redialling(quick_s: float = 0.3, for_s: float = 10, cap_s: float = 10) -> Iterator[float]:
    """Endless pauses before a lost peer is dialled again: a process that is started anew is back within seconds,
    so they are about ``quick_s`` for the first ``for_s`` seconds, then double up to ``cap_s``.
    """
    times = round(for_s / quick_s)
    steady = (next(backoff(quick_s)) for _ in repeat(None, times))
    return chain(steady, backoff(2 * quick_s, cap_s))

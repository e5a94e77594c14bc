"""How long to wait before trying again."""

import random
from collections.abc import Iterator


def backoff(first_s: float = 0.2, cap_s: float = 10, jitter: float = 0.2) -> Iterator[float]:
    """Endless pauses in seconds: doubling from ``first_s`` up to ``cap_s``, each longer by up to ``jitter``."""
    pause = first_s
    while True:
        yield pause * (1 + random.uniform(0, jitter))  # noqa: S311 - spreads load, keeps no secret
        pause = min(pause * 2, cap_s)

"""How many may follow the output of one job, and of one user's jobs, at a time."""

import asyncio
from collections import Counter

from compute_horde.facilitator.errors import ApiError

PER_JOB = 4
PER_USER = 64
RETRY_AFTER = {"Retry-After": "5"}
UNUSED_SECONDS = 10
AT_FULL_PACE = 4
"""So many streams of one user go as fast as they can; more of them share that."""


class Seat:
    """One follower's place. It is given back when it is left, or when nobody takes it."""

    def __init__(self, keys: tuple[str, str], taken: "Counter[str]", unused_s: float) -> None:
        self._keys, self._taken, self._held = keys, taken, True
        taken.update(keys)
        self._timer = asyncio.get_running_loop().call_later(unused_s, self.leave)

    @property
    def slowness(self) -> float:
        """How many times longer this stream waits between questions: one user's share of the work is bounded."""
        return max(1.0, self._taken[self._keys[0]] / AT_FULL_PACE)

    def sit(self) -> None:
        """The stream has begun. A client that was slow to begin is let in all the same."""
        self._timer.cancel()
        if not self._held:
            self._held = True
            self._taken.update(self._keys)

    def leave(self) -> None:
        """Leaving twice is fine."""
        self._timer.cancel()
        if self._held:
            self._held = False
            self._taken.subtract(self._keys)
            for key in self._keys:
                if not self._taken[key]:
                    del self._taken[key]


class Seats:
    """``unused_s``: a place that is not taken by then is free again; its client left before the answer began."""

    def __init__(self, unused_s: float = UNUSED_SECONDS) -> None:
        self._taken: Counter[str] = Counter()
        self._unused = unused_s

    def take(self, user: str, job_uuid: str) -> Seat:
        """:raises ApiError: 429."""
        for key, most, whose in ((job_uuid, PER_JOB, "this job"), (user, PER_USER, "your jobs")):
            if self._taken[key] >= most:
                raise ApiError(
                    429, {"detail": f"The output of {whose} is followed {most} times already."}, RETRY_AFTER
                )
        return Seat((user, job_uuid), self._taken, self._unused)

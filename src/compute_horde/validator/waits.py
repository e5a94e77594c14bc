"""How long a job may still wait, from what is kept of it. Pure."""

import time

from compute_horde.validator.rows import Job
from compute_horde.validator.scheduling import Terms


def queue_left(job: Job, terms: Terms, now: float | None = None) -> float:
    """Seconds. ``now``: UNIX seconds; a clock that was set back does not give a job more time than it had."""
    left = terms.queue_s if job.queue_left_s is None else min(job.queue_left_s, terms.queue_s)
    if job.queued_at is None:
        return max(0.0, left)
    return max(0.0, left - max(0.0, (time.time() if now is None else now) - job.queued_at))

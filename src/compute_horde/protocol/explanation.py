"""Ours: why a job has not started, in words and as data (extension ``explain``)."""

import datetime as dt

from pydantic import Field, field_serializer

from compute_horde.protocol.base import Message
from compute_horde.protocol.scheduling import QueuePlace

MAX_MINERS = 200
"""Miners in one explanation; those that were tried last come first."""


class MinerTrial(Message):
    """What one miner was asked for a job, and what it answered.

    * ``answer``: ``not_tried``, ``busy``, ``unreachable``, ``class_not_offered``, ``declined``, ``silent``,
      ``accepted``, ``failed`` or ``excluded``
    * ``message``: the answer in words; ``remedy``: what would make this miner run the job
    * ``tries``: how often it was asked; ``last_at``: when that was last
    """

    miner_hotkey: str
    answer: str
    message: str
    remedy: str = ""
    tries: int = Field(default=0, ge=0)
    last_at: dt.datetime | None = None

    @field_serializer("last_at")
    def _iso(self, value: dt.datetime | None) -> str | None:
        return value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if value else None


class Explanation(Message):
    """Where a job stands and why.

    * ``state``: the status by its name on the wire, ``queued`` included
    * ``summary``: one or two sentences; ``remedies``: what would make the job run, best first
    * ``attempt`` of ``attempts``: the one under way or made next
    * ``queue``: its place while it waits; ``queue_time_left_s``: seconds until it is given up
    * ``reported_by``: ``validator``, or ``facilitator`` where the validator cannot be asked
    """

    job_uuid: str
    state: str
    summary: str
    reported_by: str
    attempt: int | None = None
    attempts: int | None = None
    queue: QueuePlace | None = None
    queue_time_left_s: float | None = None
    miners: list[MinerTrial] = Field(default_factory=list)
    remedies: list[str] = Field(default_factory=list)

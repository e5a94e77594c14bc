"""Why a job has not started, as the horde tells it."""

import datetime as dt
from dataclasses import dataclass

from compute_horde_sdk._internal.models import ComputeHordeJobStatus, QueuePlace


@dataclass(frozen=True)
class MinerTrial:
    """What one miner was asked for a job, and what it answered.

    * ``answer``: ``not_tried``, ``busy``, ``unreachable``, ``class_not_offered``, ``declined``, ``silent``,
      ``accepted``, ``failed`` or ``excluded``; a later horde may have further words
    * ``message``: the answer in words; ``remedy``: what would make this miner run the job
    * ``tries``: how often it was asked; ``last_at``: when that was last
    """

    miner_hotkey: str
    answer: str
    message: str
    remedy: str = ""
    tries: int = 0
    last_at: dt.datetime | None = None

    def __str__(self) -> str:
        return f"{self.miner_hotkey}: {self.message}" + (f" {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Explanation:
    """Where a job stands and why. ``print`` shows it in words.

    * ``state``: its status; ``summary``: one or two sentences
    * ``reported_by``: ``validator``, or ``facilitator`` where the validator cannot be asked
    * ``attempt`` of ``attempts``: the one under way or made next; None where that is not known
    * ``queue``: its place while it waits; ``queue_time_left``: seconds until it is given up
    * ``miners``: those that were tried last come first
    * ``remedies``: what would make the job run, best first
    """

    job_uuid: str
    state: ComputeHordeJobStatus
    summary: str
    reported_by: str
    attempt: int | None = None
    attempts: int | None = None
    queue: QueuePlace | None = None
    queue_time_left: float | None = None
    miners: tuple[MinerTrial, ...] = ()
    remedies: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.summary, *(f"  {miner}" for miner in self.miners), *(f"- {text}" for text in self.remedies)]
        return "\n".join(lines)

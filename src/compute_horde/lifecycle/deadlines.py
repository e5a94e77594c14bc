"""Stage deadlines: one running deadline, to which each stage adds its limit; unused time carries over (8.1)."""

from dataclasses import dataclass

from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.executor_classes import EXECUTOR_CLASSES
from compute_horde.protocol.validator_miner import ExecutorTiming


@dataclass(frozen=True)
class Limits:
    """A job's limits in seconds. ``leeway`` is granted once, ``startup`` includes the image pull."""

    download: float
    execution: float
    upload: float
    streaming_start: float = 0
    leeway: float = 5
    reservation: float = 7
    startup: float = 300

    @property
    def cost(self) -> float:
        """Executor-seconds that the job is paid for (section 4.5)."""
        return self.download + self.execution + self.upload

    def readiness(self, executor_class: ExecutorClass) -> float:
        """How long an accepted job may wait for its executor."""
        return EXECUTOR_CLASSES[executor_class].spin_up_seconds + self.startup

    def overall(self, executor_class: ExecutorClass) -> float:
        """From hand-over to the end, all stages used up: past this, whoever waits may call the job lost."""
        return self.reservation + self.readiness(executor_class) + self.leeway + self.cost + self.streaming_start

    def timing(self) -> ExecutorTiming:
        """The same on the wire, in whole seconds."""
        return ExecutorTiming(
            allowed_leeway=int(self.leeway),
            download_time_limit=int(self.download),
            execution_time_limit=int(self.execution),
            upload_time_limit=int(self.upload),
            streaming_start_time_limit=int(self.streaming_start),
        )


class RunningDeadline:
    """A moment on a monotonic clock that moves on as stages begin. Pure: the caller says what time it is."""

    def __init__(self, now: float, leeway: float) -> None:
        self.at = now + leeway

    def extend(self, seconds: float) -> float:
        """A stage begins: add its limit. Answers the new deadline."""
        self.at += seconds
        return self.at

    def remaining(self, now: float) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - now)

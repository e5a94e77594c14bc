"""Which limits a job request sets, in the executor's own arithmetic (section 8.1)."""

from dataclasses import dataclass

from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.state import KEEP_SECONDS, Stamp, State
from compute_horde.lifecycle.deadlines import Limits
from compute_horde.protocol.validator_miner import V0InitialJobRequest


@dataclass(frozen=True)
class StageLimits:
    """Seconds per stage. A peer's one time-out for everything becomes ``leeway``, to which no stage adds."""

    leeway: float
    download: float
    execution: float
    upload: float
    container: float

    @classmethod
    def of(cls, request: V0InitialJobRequest) -> "StageLimits":
        """:raises JobFailure: ``protocol_error``: the request sets no limit at all."""
        timing = request.executor_timing
        if timing is not None:
            limits = Limits(
                download=timing.download_time_limit or 0,
                execution=timing.execution_time_limit or 0,
                upload=timing.upload_time_limit or 0,
                leeway=timing.allowed_leeway or 0,
            )
            return cls(limits.leeway, limits.download, limits.execution, limits.upload, limits.execution)
        if request.timeout_seconds is None:
            raise failure("protocol_error", "The job request sets no time limit.")
        whole = float(request.timeout_seconds)
        return cls(whole, 0, 0, 0, whole)

    @property
    def whole(self) -> float:
        """From the end of the start-up to the last message, all used up."""
        return self.leeway + self.download + self.execution + self.upload


def first_state(initial: V0InitialJobRequest, token: str, now: Stamp, startup_until: float) -> State:
    """The state of a job that begins: it is kept for all its limits and :data:`KEEP_SECONDS`."""
    try:
        whole = StageLimits.of(initial).whole
    except JobFailure:
        whole = 0.0  # it will be told of that
    keep_s = max(0.0, startup_until - now.elapsed) + whole + KEEP_SECONDS
    return State(
        token=token,
        job_uuid=initial.job_uuid,
        written=now,
        keep_until=now.wall + keep_s,
        startup_until=startup_until,
    )

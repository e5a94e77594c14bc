"""Whether a job that nobody can take now waits, or how it ends. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from compute_horde.lifecycle import failures
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.validator import outcomes
from compute_horde.validator.outcomes import Outcome


@dataclass(frozen=True)
class Candidate:
    """A miner of the job's pool: what is known of it now."""

    hotkey: str
    excluded: bool = False
    lacks_class: bool = False
    away: bool = False


@dataclass(frozen=True)
class Situation:
    """A job without a miner.

    * ``busy``: what the last busy miner said; ``last_failure``: how the last attempt, or a decline, left the job
    * ``waits``: it may wait on; ``waited_s``: so long it has waited
    """

    executor_class: ExecutorClass
    trusted: bool
    candidates: Sequence[Candidate]
    last_failure: Outcome | None
    busy: Outcome | None
    waits: bool
    waited_s: float


def verdict(now: Situation) -> Outcome | None:
    """How the job ends at once; None: it waits."""
    hopeful = [one for one in now.candidates if not one.excluded and not one.lacks_class]
    if hopeful and now.waits:
        return None
    if now.last_failure is not None:
        return _with_waiting(now.last_failure, now)
    if not now.candidates:
        return _nobody_known(now.trusted)
    if hopeful and now.waited_s > 0:
        return outcomes.queue_timeout(now.waited_s, _why(hopeful))
    lacking = sum(one.lacks_class for one in now.candidates)
    away = sum(one.away and not one.lacks_class for one in now.candidates)
    if len(hopeful) > away:
        return now.busy or outcomes.all_busy(now.executor_class.value)
    if lacking == 0:
        return _unreachable(now.trusted, len(now.candidates))
    return outcomes.no_miner(
        f"No miner offers executors of class {now.executor_class.value}",
        "Choose another executor class, or wait until a miner offers this one.",
        executor_class=now.executor_class.value,
        tried=len(now.candidates),
        unreachable=away,
    )


def is_hopeless(candidates: Sequence[Candidate]) -> bool:
    """Whether none of them will ever take the job."""
    return all(one.excluded or one.lacks_class for one in candidates)


def _with_waiting(failure: Outcome, now: Situation) -> Outcome:
    return failure.with_details(queue={"waited_s": round(now.waited_s, 1)}) if now.waited_s > 0 else failure


def _why(hopeful: Sequence[Candidate]) -> str:
    if all(one.away for one in hopeful):
        return "no miner that may have executors of this class could be reached"
    return "all executors of this class were busy"


def _nobody_known(trusted: bool) -> Outcome:
    if trusted:
        return outcomes.no_miner(
            "This validator has no trusted miner",
            "Send the job without on_trusted_miner, or to a validator that has a trusted miner.",
        )
    return outcomes.no_miner("No miner is known to this validator", "Wait until miners have registered.")


def _unreachable(trusted: bool, tried: int) -> Outcome:
    text = "The trusted miner could not be reached" if trusted else f"None of {tried} miners could be reached"
    return outcomes.horde_failed(failures.problem("miner_unreachable", text, tried=tried))

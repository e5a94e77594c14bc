"""Why a job waits, and what would end that."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from compute_horde.validator.queue import words
from compute_horde.validator.queue.miners import Standing
from compute_horde.validator.queue.view import Answer, View

_NEVER_AGAIN = (Answer.DECLINED, Answer.EXCLUDED)


@dataclass(frozen=True)
class Why:
    """A sentence, and what can be done, best first."""

    reason: str
    remedies: tuple[str, ...] = ()


def why(view: View, found: Sequence[Standing]) -> Why:
    """The first of these that holds."""
    wanted = view.executor_class.value
    open_ = [standing for standing in found if standing.answer not in _NEVER_AGAIN]
    offering = [standing for standing in open_ if _offers(standing)]
    away = [standing for standing in open_ if standing.answer is Answer.UNREACHABLE]
    if not view.is_confirmed:
        return _unconfirmed()
    if view.retry_in_s > 0:
        return _backoff(view)
    if not found:
        return _nobody(view)
    if not open_:
        return _all_used_up(view, len(found))
    if offering:
        return _in_line(view, offering)
    if away:
        return _away(view, away)
    if all(standing.answer is Answer.CLASS_NOT_OFFERED for standing in open_):
        return _not_offered(view, open_)
    return Why(f"The validator is asking miners for an executor of class {wanted}.")


def _offers(standing: Standing) -> bool:
    """It can be reached and has the class; busy says that as well as a manifest does."""
    if standing.answer is Answer.UNREACHABLE:
        return False
    return standing.executors > 0 or standing.answer is Answer.BUSY


def _unconfirmed() -> Why:
    return Why(
        "The facilitator has not confirmed yet that this validator has the job.",
        ("Wait some seconds; if it lasts, the facilitator cannot be reached, and its operator can look.",),
    )


def _backoff(view: View) -> Why:
    pause = words.duration(view.retry_in_s)
    return Why(f"Attempt {view.attempt} of {view.attempts} begins in about {pause}.", ("Wait for it.",))


def _nobody(view: View) -> Why:
    if view.on_trusted_miner:
        return Why(
            "The job wishes the trusted miner, and this validator has none.",
            ("Create it again without on_trusted_miner, or at a validator that has a trusted miner.",),
        )
    return Why(
        "This validator knows of no miner.", ("Create the job at another validator, or wait until one registers.",)
    )


def _all_used_up(view: View, miners: int) -> Why:
    who = "The only miner" if miners == 1 else f"Each of the {miners} miners"
    return Why(
        f"{who} that could be asked declined the job or failed it.",
        ("Look at each miner's answer: what is the job's own doing can be changed; then create it again.",),
    )


def _in_line(view: View, offering: Sequence[Standing]) -> Why:
    wanted = view.executor_class.value
    slots = sum(standing.executors for standing in offering)
    ahead = view.place.position - 1 if view.place and view.place.position else 0
    if not ahead and any(standing.known.free for standing in offering):
        return Why(f"An executor of class {wanted} is free; the job is being offered to its miner.")
    return Why(_all_busy(slots, wanted), (_when_free(view, slots), *_too_late(view)))


def _all_busy(slots: int, wanted: str) -> str:
    match slots:
        case 0:
            return f"All executors of class {wanted} are busy."
        case 1:
            return f"The only executor of class {wanted} is busy."
        case _:
            return f"All {slots} executors of class {wanted} are busy."


def _when_free(view: View, slots: int) -> str:
    wanted = view.executor_class.value
    ahead = view.place.position - 1 if view.place and view.place.position else 0
    first = f", after {words.count(ahead, 'other job')}" if ahead else ""
    which = "the executor" if slots == 1 else f"one of the {slots} executors" if slots else "one of the executors"
    estimate = view.place.starts_in_s if view.place else None
    about = "" if estimate is None else f"; that is in about {words.duration(estimate)}"
    return f"Wait: it starts when {which} of class {wanted} is free{first}{about}."


def _too_late(view: View) -> tuple[str, ...]:
    """It will probably not live to see it."""
    estimate = view.place.starts_in_s if view.place else None
    if estimate is None or view.queue_left_s is None or estimate <= view.queue_left_s:
        return ()
    return ("Create it again with a longer queue_time_limit: it is probably given up before its turn comes.",)


def _away(view: View, away: Sequence[Standing]) -> Why:
    wanted = view.executor_class.value
    return Why(
        f"No miner that may have executors of class {wanted} can be reached ({words.count(len(away), 'miner')}).",
        (
            "Wait: they are dialled again and again.",
            "Their operators can check that they run and that their addresses can be reached from the validator.",
        ),
    )


def _not_offered(view: View, found: Sequence[Standing]) -> Why:
    offered: Counter[str] = Counter()
    for standing in found:
        offered.update({name.value: number for name, number in (standing.known.offers or {}).items() if number})
    names = ", ".join(f"{name} ({words.count(number, 'executor')})" for name, number in sorted(offered.items()))
    other = f"Create it again with a class that is offered: {names}." if names else ""
    remedies = (other, "Wait until a miner offers this class.")
    return Why(f"No miner offers executors of class {view.executor_class.value}.", tuple(filter(None, remedies)))

"""What each miner was asked and answered, and what would make it run the job."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.explanation import MAX_MINERS, MinerTrial
from compute_horde.validator.queue.view import Answer, FailedAttempt, KnownMiner, Trial, View
from compute_horde.validator.queue.words import count, duration, joined, sentence, since


@dataclass(frozen=True)
class Standing:
    """All that is known of one miner and this job. ``executors``: of the job's class, busy ones included."""

    hotkey: str
    answer: Answer
    known: KnownMiner
    asked: Trial | None
    failed: FailedAttempt | None
    executors: int


def standings(view: View) -> list[Standing]:
    """Every miner that is known or was asked; those that were asked last first."""
    known = {miner.hotkey: miner for miner in view.miners}
    asked = {trial.miner_hotkey: trial for trial in view.trials}
    failed = {attempt.miner_hotkey: attempt for attempt in sorted(view.failed, key=lambda a: a.number)}
    found = [
        _standing(view, known.get(hotkey) or KnownMiner(hotkey), asked.get(hotkey), failed.get(hotkey))
        for hotkey in {**known, **asked, **failed}
    ]
    return sorted(found, key=_newest_first)


def told(view: View, found: Iterable[Standing]) -> list[MinerTrial]:
    """Each miner in words; of very many the last are left out."""
    return [_told(view, standing) for _, standing in zip(range(MAX_MINERS), found, strict=False)]


def _standing(view: View, known: KnownMiner, asked: Trial | None, failed: FailedAttempt | None) -> Standing:
    executors = (known.offers or {}).get(view.executor_class, 0)
    return Standing(known.hotkey, _answer(view, known, asked, failed), known, asked, failed, executors)


def _answer(view: View, known: KnownMiner, asked: Trial | None, failed: FailedAttempt | None) -> Answer:
    """What happened to an attempt outweighs what was said to an offer; what is known now, what was said before."""
    if known.hotkey == view.miner and not view.state.is_terminal:
        return Answer.ACCEPTED
    if failed:
        may_try_again = view.state.is_terminal or known.hotkey == TRUSTED_MINER_HOTKEY
        return Answer.FAILED if may_try_again else Answer.EXCLUDED
    said = asked.answer if asked else Answer.NOT_TRIED
    if said in (Answer.DECLINED, Answer.ACCEPTED):
        return said
    if known.away_since is not None:
        return Answer.UNREACHABLE
    if known.offers is None:
        return said
    if not known.offers.get(view.executor_class):
        return Answer.CLASS_NOT_OFFERED
    return Answer.NOT_TRIED if said is Answer.CLASS_NOT_OFFERED else said


def _newest_first(standing: Standing) -> tuple[float, str]:
    return -(_last_at(standing) or 0.0), standing.hotkey


def _last_at(standing: Standing) -> float | None:
    asked = standing.asked.last_at if standing.asked else None
    failed = standing.failed.at if standing.failed else None
    return max((at for at in (asked, failed) if at is not None), default=None)


def _told(view: View, standing: Standing) -> MinerTrial:
    last_at = _last_at(standing)
    message, remedy = _words(view, standing)
    return MinerTrial(
        miner_hotkey=standing.hotkey,
        answer=standing.answer.value,
        message=message,
        remedy="" if view.state.is_terminal else remedy,
        tries=standing.asked.tries if standing.asked else 0,
        last_at=None if last_at is None else dt.datetime.fromtimestamp(last_at, dt.UTC),
    )


def _words(view: View, standing: Standing) -> tuple[str, str]:
    """The message and the remedy."""
    wanted, again = view.executor_class.value, _asked_again(standing.known)
    said = sentence(standing.asked.message) if standing.asked else ""
    hint = sentence(standing.asked.hint) if standing.asked else ""
    match standing.answer:
        case Answer.NOT_TRIED:
            return _untried(
                view, standing
            ), "It is asked when it is this job's turn and an executor is free there."
        case Answer.BUSY:
            return said or "It was busy.", f"It can run the job when one of {_its(standing, wanted)} is free."
        case Answer.UNREACHABLE:
            away = standing.known.away_since
            now = "It cannot be reached." if away is None else f"It has not been reached {since(away)}."
            mend = "Its operator can check that it runs and that its address can be reached from the validator."
            return joined(now, said), joined(mend, again)
        case Answer.CLASS_NOT_OFFERED:
            return f"It has no executors of class {wanted}.", "Its operator would have to add some."
        case Answer.DECLINED:
            return said or "It declined the job.", hint or "Another miner has to run the job."
        case Answer.SILENT:
            return said or "It did not answer the offer in time.", again or "It is asked again."
        case Answer.ACCEPTED:
            return "It accepted the job.", ""
        case Answer.FAILED:
            return _failure(standing), "It may be tried again, since there is no other trusted miner."
        case Answer.EXCLUDED:
            return _failure(standing), "It is not asked again for this job; another miner has to run it."


def _its(standing: Standing, wanted: str) -> str:
    return (
        f"its {count(standing.executors, 'executor')} of class {wanted}" if standing.executors else "its executors"
    )


def _asked_again(known: KnownMiner) -> str:
    pause = known.asked_again_in_s
    return "" if pause is None else f"It is asked again in about {duration(pause)}."


def _untried(view: View, standing: Standing) -> str:
    if standing.executors and standing.known.free == 0:
        return f"Not asked yet: {_all_busy(standing.executors, view.executor_class.value)}."
    return "Not asked yet."


def _all_busy(executors: int, wanted: str) -> str:
    return f"its executor of class {wanted} is busy" if executors == 1 else f"its {executors} executors are busy"


def _failure(standing: Standing) -> str:
    failed = standing.failed
    return f"Attempt {failed.number} failed on it ({failed.code}): {sentence(failed.message)}" if failed else ""

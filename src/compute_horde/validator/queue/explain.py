"""Why a job has not started, or what became of it, in words and as data. Pure."""

from collections.abc import Sequence

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.explanation import Explanation
from compute_horde.validator.queue import words
from compute_horde.validator.queue.miners import Standing, standings, told
from compute_horde.validator.queue.view import View
from compute_horde.validator.queue.waiting import Why, why

_WAITING = (JobState.SENT, JobState.RECEIVED, JobState.QUEUED)

_DOING = {
    JobState.ACCEPTED: "gets an executor ready for the job",
    JobState.EXECUTOR_READY: "has an executor ready, which fetches the job's inputs",
    JobState.VOLUMES_READY: "has the job's inputs and runs its container",
    JobState.STREAMING_READY: "runs the job's container, which can be connected to",
    JobState.EXECUTION_DONE: "has run the job's container and delivers its outputs",
}

_ENDED = {
    JobState.COMPLETED: "The job completed",
    JobState.CANCELLED: "The job was cancelled",
    JobState.REJECTED: "Nobody took the job",
    JobState.FAILED: "The job failed",
    JobState.HORDE_FAILED: "The horde failed the job",
}


def explain(view: View) -> Explanation:
    """Everything a user may want to know of a job at this moment."""
    found = standings(view)
    summary, remedies = _summary(view, found)
    return Explanation(
        job_uuid=view.job_uuid,
        state=view.state.value,
        summary=summary,
        reported_by="validator",
        attempt=view.attempt,
        attempts=view.attempts,
        queue=view.place if view.state is JobState.QUEUED else None,
        queue_time_left_s=view.queue_left_s if view.state in _WAITING else None,
        miners=told(view, found),
        remedies=list(remedies),
    )


def reason(view: View) -> str:
    """One sentence: why a job waits."""
    return why(view, standings(view)).reason


def _summary(view: View, found: Sequence[Standing]) -> tuple[str, Sequence[str]]:
    if view.state.is_terminal:
        return _ended(view)
    if view.cancel_wished:
        return "The job is being cancelled.", ["Wait: it ends within a minute."]
    if view.state in _WAITING:
        because = why(view, found)
        return words.joined(_last_failure(view), because.reason, _line(view)), _remedies(view, because)
    return _under_way(view)


def _last_failure(view: View) -> str:
    if not view.failed:
        return ""
    last = max(view.failed, key=lambda attempt: attempt.number)
    where = words.miner(last.miner_hotkey)
    said = words.sentence(last.message)
    return f"Attempt {last.number} of {view.attempts} failed on {where} ({last.code}): {said}"


def _line(view: View) -> str:
    """The place in the queue."""
    place = view.place
    if view.state is not JobState.QUEUED or place is None or place.position is None:
        return ""
    of = "" if place.length is None else f" of {place.length}"
    return f"The job is number {place.position}{of} in the queue."


def _remedies(view: View, because: Why) -> Sequence[str]:
    if view.state is not JobState.QUEUED or view.queue_left_s is None:
        return because.remedies
    left = words.duration(view.queue_left_s)
    return (*because.remedies, f"Cancel it if it need not run; it is given up by itself in about {left}.")


def _under_way(view: View) -> tuple[str, Sequence[str]]:
    who = words.sentence(words.miner(view.miner)) if view.miner else "A miner"
    attempt = f" (attempt {view.attempt} of {view.attempts})" if view.attempts > 1 else ""
    doing = f"{who.rstrip('.')} {_DOING[view.state]}{attempt}."
    if view.miner_away_since is None:
        return words.joined(_last_failure(view), doing), ()
    lost = f"The connection to it has been lost {words.since(view.miner_away_since)}."
    return words.joined(doing, lost, "The validator dials again while the job's time lasts."), (
        "Wait: the miner goes on by itself, and delivers when it can be reached again.",
        "Its operator can check that it runs and that its address can be reached from the validator.",
    )


def _ended(view: View) -> tuple[str, Sequence[str]]:
    attempt = f" in attempt {view.attempt} of {view.attempts}" if view.attempt > 1 else ""
    if view.state is JobState.COMPLETED or view.ending is None:
        return f"{_ENDED[view.state]}{attempt}.", ()
    said = words.sentence(view.ending.message)
    hint = words.sentence(view.ending.hint)
    return f"{_ENDED[view.state]}{attempt} ({view.ending.code}): {said}", [hint] if hint else ()

"""Why a job stands where it stands, in the facilitator's words, for when its validator cannot be asked. Pure."""

import datetime as dt
from dataclasses import dataclass

from compute_horde.facilitator.places import queue_place
from compute_horde.facilitator.rows import Row
from compute_horde.facilitator.tables import moment
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import Participant
from compute_horde.protocol.explanation import Explanation

SENT = {
    "away": "The job has not reached its validator, which is not connected to the facilitator {since}.",
    "there": "The job is on its way to its validator, which is connected but has not confirmed it yet.",
}
STATES = {
    JobState.RECEIVED: "Its validator has the job and looks for an executor.",
    JobState.QUEUED: "The job waits in its validator for an executor.",
    JobState.ACCEPTED: "A miner has accepted the job and prepares an executor.",
    JobState.EXECUTOR_READY: "An executor is ready and fetches the job's input.",
    JobState.VOLUMES_READY: "The job's input is there, and the job runs.",
    JobState.STREAMING_READY: "The job runs, and can be streamed to.",
    JobState.EXECUTION_DONE: "The job's program has ended, and its output is collected.",
    JobState.COMPLETED: "The job has completed.",
    JobState.REJECTED: "The job was rejected: {why}",
    JobState.FAILED: "The job has failed: {why}",
    JobState.HORDE_FAILED: "The horde has failed the job: {why}",
    JobState.CANCELLED: "The job was cancelled.",
}
AWAY = " Its validator is not connected to the facilitator {since}, so there may be news."
SILENT = " Its validator cannot say more."
CANCELLING = " It is being cancelled."
RECONNECT = "The job goes on when its validator is connected again; it is given up {deadline} at the latest."
OTHER_VALIDATOR = "Cancel the job and create it at another validator."


@dataclass(frozen=True)
class Known:
    """What the facilitator knows. ``last_seen``: when (UNIX seconds) the validator's last connection ended."""

    row: Row
    last_status: Row
    connected: bool
    last_seen: float | None
    now: float


def explain(known: Known) -> Explanation:
    """In the facilitator's own words."""
    row, state = known.row, JobState(known.row["state"])
    attempt = StatusMetadata.model_validate_json(known.last_status["metadata"]).attempt
    waits = state is JobState.QUEUED
    place = (row["queue_position"], row["queue_length"], row["queue_starts_us"])
    return Explanation(
        job_uuid=row["uuid"],
        state=state.value,
        summary=_summary(known, state),
        reported_by=Participant.FACILITATOR.value,
        attempt=row["attempt"],
        attempts=attempt.of if attempt else None,
        queue=queue_place(place, known.now) if waits else None,
        remedies=_remedies(known, state),
    )


def _summary(known: Known, state: JobState) -> str:
    cancelling = CANCELLING if known.row["cancel_requested"] and not state.is_terminal else ""
    if state is JobState.SENT:
        text = SENT["there" if known.connected else "away"]
        return text.format(since=_since(known)) + cancelling
    text = STATES[state].format(why=_why(known.last_status))
    if state.is_terminal:
        return text
    return text + cancelling + (SILENT if known.connected else AWAY.format(since=_since(known)))


def _remedies(known: Known, state: JobState) -> list[str]:
    if state.is_terminal or known.connected:
        return []
    deadline = moment(known.row["deadline_us"]).strftime("on %Y-%m-%d at %H:%M UTC")
    return [RECONNECT.format(deadline=deadline), OTHER_VALIDATOR]


def _since(known: Known) -> str:
    if known.last_seen is None:
        return "at the moment"
    return dt.datetime.fromtimestamp(known.last_seen, dt.UTC).strftime("since %Y-%m-%d %H:%M:%S UTC")


def _why(status: Row) -> str:
    told = StatusMetadata.model_validate_json(status["metadata"])
    details = told.job_rejection_details or told.job_failure_details or told.horde_failure_details
    return details.message if details else "no reason was given."

"""Jobs that the facilitator itself ends: of validators that fall silent, and those that were cancelled."""

from collections.abc import Callable

import structlog

from compute_horde.facilitator.counting import Counting
from compute_horde.facilitator.rows import UnknownJob
from compute_horde.facilitator.statuses import Change
from compute_horde.facilitator.store import JobStore
from compute_horde.facilitator.topics import announce
from compute_horde.facilitator.validators import Links
from compute_horde.lifecycle.failures import problem
from compute_horde.lifecycle.states import IllegalTransition, JobState
from compute_horde.protocol.compat.cancelled import CANCELLED_CODE
from compute_horde.protocol.details import FailureDetails, HordeFailureDetails, StatusMetadata
from compute_horde.protocol.enums import FailureReason, HordeFailureReason, Participant
from compute_horde.storage.bus import Bus

log = structlog.get_logger(__name__)

NEVER_SENT = "The job was cancelled before its validator was given it"
NOT_STOPPED = "The job was cancelled; its validator cannot stop it, so its container may still run for a while"
NOT_CONFIRMED = "The job was cancelled; its validator did not confirm in time that it was stopped"


class Endings:
    """Ends jobs in the facilitator's name. A job that has ended meanwhile is left as it is."""

    def __init__(
        self, store: JobStore, bus: Bus, links: Links, now: Callable[[], float], counting: Counting
    ) -> None:
        self._store, self._bus, self._links, self._now = store, bus, links, now
        self._counting = counting

    async def cancel(self, job_uuid: str, why: str) -> None:
        """``why``: one of this module's sentences."""
        await self._end(job_uuid, JobState.CANCELLED, _cancelled(why))

    async def give_up(self, job_uuid: str, last: JobState) -> None:
        """The validator reported nothing for too long (G10)."""
        await self._end(job_uuid, JobState.HORDE_FAILED, _silence(last))

    async def _end(self, job_uuid: str, to: JobState, metadata: StatusMetadata) -> None:
        text = metadata.model_dump_json(exclude_none=True)
        try:
            change = Change(job_uuid, to, text, Participant.FACILITATOR)
            moved = await self._store.add_status(change, self._now())
        except (UnknownJob, IllegalTransition):
            return
        self._links.forget(job_uuid)
        announce(self._bus, moved.user, job_uuid)
        await self._counting.moved(job_uuid, moved, metadata)
        log.warning("job ended by the facilitator", job_uuid=job_uuid, state=to.value, attempt=moved.attempt)


def _cancelled(why: str) -> StatusMetadata:
    found = problem(CANCELLED_CODE, why)
    details = FailureDetails(
        reason=FailureReason.UNKNOWN, stage=found.stage, message=found.message, context=found.to_context()
    )
    return StatusMetadata(job_failure_details=details)


def _silence(last: JobState) -> StatusMetadata:
    found = problem(
        "validator_silent",
        f"The validator reported nothing within the job's limits; the last status was {last.value}",
        last_status=last.value,
    )
    details = HordeFailureDetails(
        reported_by=Participant.FACILITATOR,
        reason=HordeFailureReason.UNHANDLED_TIMEOUT,
        message=found.message,
        context=found.to_context(),
    )
    return StatusMetadata(horde_failure_details=details)

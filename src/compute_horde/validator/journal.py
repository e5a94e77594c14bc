"""Writes a job's progress: the lifecycle table decides, the row and its status update are one transaction."""

import time

import structlog

from compute_horde.lifecycle.states import JobState, to_wire, transition
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import Participant
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate, V2JobRequest
from compute_horde.validator.outbox import Outbox
from compute_horde.validator.outcomes import Outcome
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.store import Admission, Incident, IssuedReceipt, Job, Store

log = structlog.get_logger(__name__)


class Journal:
    """Everything that the facilitator hears of goes through here."""

    def __init__(self, store: Store, outbox: Outbox, reputation: Reputation) -> None:
        self._store, self._outbox, self._reputation = store, outbox, reputation

    async def admit(self, request: V2JobRequest, replay_key: str) -> tuple[Admission, Job]:
        """A request that is in order: kept, and reported as ``received``, unless it is known or replayed."""
        job = Job(request, JobState.RECEIVED, time.time())
        return await self._add(job, replay_key, None), job

    async def turn_away(self, request: V2JobRequest, outcome: Outcome) -> Admission:
        """A request that is refused: kept, so that it is refused once."""
        return await self._add(Job(request, outcome.state, time.time()), None, outcome.metadata)

    async def _add(self, job: Job, replay_key: str | None, metadata: StatusMetadata | None) -> Admission:
        frame = _frame(job.uuid, job.state, metadata)
        admission, outbox_id = await self._store.add_job(job, replay_key, frame)
        if admission is Admission.NEW:
            self._outbox.push(outbox_id, frame)
        return admission

    async def advance(
        self,
        job: Job,
        old: JobState,
        new: JobState,
        *,
        metadata: StatusMetadata | None = None,
        deadline_at: float | None = None,
        receipt: IssuedReceipt | None = None,
    ) -> None:
        """A stage that the miner reports.

        :raises IllegalTransition: the table does not allow it; nothing was written.
        """
        transition(old, new, Participant.MINER)
        frame = _frame(job.uuid, new, metadata)
        outbox_id = await self._store.advance(job.uuid, old, new, frame, deadline_at=deadline_at, receipt=receipt)
        self._outbox.push(outbox_id, frame)
        log.info("job", job=job.uuid, status=new.value)

    async def end(
        self, job: Job, old: JobState, outcome: Outcome, miner_hotkey: str | None, receipt: IssuedReceipt | None
    ) -> None:
        """The end of a job, with its last receipt and, where the miner is at fault, an incident.

        :raises IllegalTransition: the job has ended already; nothing was written.
        """
        transition(old, outcome.state, outcome.by)
        incident = None
        if outcome.blame and miner_hotkey:
            incident = Incident(miner_hotkey, job.uuid, outcome.blame, time.time())
        frame = _frame(job.uuid, outcome.state, outcome.metadata)
        outbox_id = await self._store.advance(
            job.uuid, old, outcome.state, frame, receipt=receipt, incident=incident
        )
        self._outbox.push(outbox_id, frame)
        if incident:
            self._reputation.note(incident)
        log.info("job ended", job=job.uuid, status=outcome.state.value, blame=outcome.blame)

    async def blame(self, miner_hotkey: str, job_uuid: str, code: str) -> None:
        """A miner's fault that does not end the job."""
        incident = Incident(miner_hotkey, job_uuid, code, time.time())
        await self._store.add_incident(incident)
        self._reputation.note(incident)


def _frame(job_uuid: str, state: JobState, metadata: StatusMetadata | None) -> str:
    return V0JobStatusUpdate(uuid=job_uuid, status=to_wire(state), metadata=metadata).to_frame()

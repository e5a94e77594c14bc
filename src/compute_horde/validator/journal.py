"""Writes a job's progress: the lifecycle table decides, the row and its status update are one transaction.

A write that the database does not take is repeated until it does; nothing is sent before.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from compute_horde.chain.port import MinerEndpoint
from compute_horde.lifecycle.states import JobState, to_wire, transition_in_attempt
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import Participant
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate, V2JobRequest
from compute_horde.protocol.scheduling import AttemptDetails, QueueDetails
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.telemetry.outages import Outages
from compute_horde.transport.backoff import backoff
from compute_horde.validator.claims import Claims
from compute_horde.validator.counting import Counting
from compute_horde.validator.disk import Disk
from compute_horde.validator.outbox import Outbox
from compute_horde.validator.outcomes import Outcome
from compute_horde.validator.persisting import persist
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.rows import (
    Admission,
    Change,
    FailedAttempt,
    Incident,
    IssuedReceipt,
    Job,
    Trial,
    words,
)
from compute_horde.validator.store import Store

log = structlog.get_logger(__name__)

_WAITS_NO_MORE: dict[str, Any] = {"queued_at": None, "not_before": None}
_AT_NO_MINER: dict[str, Any] = {"miner": None, "started_at": None, "deadline_at": None}


class Journal:
    """Everything that the facilitator hears of goes through here. What changes a job answers it as it is then.

    :raises StaleJob: the job is another process's now, or was changed behind our back.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        reputation: Reputation,
        claims: Claims,
        disk: Disk,
        counting: Counting,
        outages: Outages,
        pauses: Callable[[], Iterator[float]] = backoff,
    ) -> None:
        """``pauses``: how long to wait for the database."""
        self._store, self._outbox, self._reputation, self._claims = store, outbox, reputation, claims
        self._disk, self._counting, self._outages, self._pauses = disk, counting, outages, pauses

    async def admit(self, request: V2JobRequest, replay_key: str) -> tuple[Admission, Job]:
        """A request that is in order: kept, and reported as ``received``, unless it is known or replayed."""
        job = Job(request, JobState.RECEIVED, time.time())
        admission = await self._add(job, replay_key, None)
        if admission is Admission.NEW:
            self._counting.admitted(job)
        return admission, job

    async def turn_away(self, request: V2JobRequest, outcome: Outcome) -> Admission:
        """A request that is refused: kept, so that it is refused once."""
        admission = await self._add(Job(request, outcome.state, time.time()), None, outcome.metadata)
        if admission is Admission.NEW:
            self._counting.turned_away(outcome)
        return admission

    async def _add(self, job: Job, replay_key: str | None, metadata: StatusMetadata | None) -> Admission:
        frame = _frame(job.uuid, job.state, metadata)

        async def add(again: bool) -> tuple[Admission, int]:
            return await self._store.add_job(job, replay_key, frame, again=again)

        admission, outbox_id = await persist(add, self._pauses, "a new job", self._outages)
        if admission is Admission.NEW:
            self._claims.posted(job.uuid)
            self._outbox.push(outbox_id, job.uuid, frame, self._disk.begin())
        return admission

    async def _apply(self, job: Job, change: Change) -> Job:
        async def apply(again: bool) -> tuple[Job, int]:
            return await self._store.apply(job, change, again=again)

        after, outbox_id = await persist(apply, self._pauses, f"job {job.uuid}", self._outages)
        self._counting.moved(job, after)
        if change.frame is not None:
            self._outbox.push(outbox_id, job.uuid, change.frame)
        if change.incident is not None:
            self._reputation.note(change.incident)
        return after

    async def assign(
        self, job: Job, miner: MinerEndpoint, deadline_at: float, receipt: IssuedReceipt, trials: tuple[Trial, ...]
    ) -> Job:
        """Note, before the initial request leaves, to whom it goes."""
        values: dict[str, Any] = {"miner": miner, "started_at": time.time(), "deadline_at": deadline_at}
        anew = job.queued_at is not None or job.last_failure is not None or bool(trials)
        return await self._apply(job, Change(values, receipt=receipt, anew=anew, trials=trials))

    async def declined(
        self, job: Job, outcome: Outcome | None, receipt: IssuedReceipt | None, trials: tuple[Trial, ...]
    ) -> Job:
        """The miner did not take the job: it has none again. ``outcome``: how it would end if nobody else does."""
        values = {**_AT_NO_MINER, "last_failure": outcome or job.last_failure}
        incident = _incident(job, outcome) if outcome else None
        return await self._apply(job, Change(values, receipt=receipt, incident=incident, trials=trials))

    async def enqueue(
        self, job: Job, queue: QueueDetails, attempt: AttemptDetails, trials: tuple[Trial, ...]
    ) -> Job:
        """The job waits from now on, for ``queue.time_limit_s`` seconds at most."""
        state, _ = transition_in_attempt(
            job.state, job.attempt, JobState.QUEUED, job.attempt, Participant.VALIDATOR
        )
        values = {"state": state, "queued_at": time.time(), "queue_left_s": queue.time_limit_s}
        metadata = StatusMetadata(attempt=attempt, queue=queue)
        frame = _frame(job.uuid, JobState.QUEUED, metadata)
        log.info("job waits", job=job.uuid, why=queue.reason)
        return await self._apply(job, Change(values, frame, trials=trials))

    async def waits(self, job: Job, queue_left_s: float, trials: tuple[Trial, ...]) -> Job:
        """A job that is reported as queued already, between two attempts, waits from now on."""
        values = {"queued_at": time.time(), "queue_left_s": queue_left_s}
        return await self._apply(job, Change(values, trials=trials))

    async def advance(
        self,
        job: Job,
        new: JobState,
        *,
        metadata: StatusMetadata | None = None,
        deadline_at: float | None = None,
        receipt: IssuedReceipt | None = None,
        queue_left_s: float | None = None,
    ) -> Job:
        """A stage that the miner reports.

        :raises IllegalTransition: the table does not allow it; nothing was written.
        """
        transition_in_attempt(job.state, job.attempt, new, job.attempt, Participant.MINER)
        values: dict[str, Any] = {"state": new, "deadline_at": deadline_at}
        if job.queued_at is not None or job.not_before is not None:
            values |= _WAITS_NO_MORE | {"queue_left_s": queue_left_s}
        frame = _frame(job.uuid, new, metadata)
        after = await self._apply(job, Change(values, frame, receipt))
        log.info("job", job=job.uuid, status=new.value)
        return after

    async def try_again(
        self,
        job: Job,
        outcome: Outcome,
        failed: FailedAttempt,
        *,
        not_before: float,
        queue: QueueDetails,
        attempt: AttemptDetails,
        receipt: IssuedReceipt | None,
        trials: tuple[Trial, ...],
    ) -> Job:
        """The attempt has failed, another one follows. ``attempt``: the next one's number."""
        state, number = transition_in_attempt(
            job.state, job.attempt, JobState.QUEUED, attempt.number, Participant.VALIDATOR
        )
        values = {
            **_AT_NO_MINER,
            "state": state,
            "attempt": number,
            "not_before": not_before,
            "queued_at": None,
            "queue_left_s": queue.time_limit_s,
            "last_failure": outcome,
        }
        metadata = outcome.metadata.model_copy(update={"attempt": attempt, "queue": queue})
        frame = _frame(job.uuid, JobState.QUEUED, metadata)
        incident = _incident(job, outcome)
        change = Change(values, frame, receipt, incident=incident, failed=failed, trials=trials)
        log.info("job is tried again", job=job.uuid, attempt=number, after=failed.code)
        return await self._apply(job, change)

    async def end(
        self,
        job: Job,
        outcome: Outcome,
        attempt: AttemptDetails,
        receipt: IssuedReceipt | None,
        trials: tuple[Trial, ...],
    ) -> Job:
        """The end of a job, with its last receipt and, where the miner is at fault, an incident.

        :raises IllegalTransition: the job has ended already; nothing was written.
        """
        transition_in_attempt(job.state, job.attempt, outcome.state, job.attempt, outcome.by)
        metadata = outcome.metadata.model_copy(update={"attempt": attempt})
        frame = _frame(job.uuid, outcome.state, metadata)
        values = {"state": outcome.state, "ended_at": time.time(), "deadline_at": None}
        values["last_failure"] = None if outcome.state is JobState.COMPLETED else outcome.without_output()
        incident = _incident(job, outcome)
        after = await self._apply(job, Change(values, frame, receipt, incident=incident, trials=trials))
        self._counting.ended(after, outcome)
        log.info("job ended", job=job.uuid, status=outcome.state.value, blame=outcome.blame)
        return after

    async def forsake(self, job: Job) -> Job:
        """Another instance of this validator has the job: it ends here, and nobody is told."""
        values = {"state": JobState.REJECTED, "ended_at": time.time(), "last_failure": None}
        log.info("job is another instance's", job=job.uuid)
        return await self._apply(job, Change(values))

    async def blame(self, miner_hotkey: str, job_uuid: str, code: str) -> None:
        """A miner's fault that does not end the job. While the database is away, only memory keeps it."""
        incident = Incident(miner_hotkey, job_uuid, code, time.time())
        self._reputation.note(incident)
        try:
            await self._store.add_incident(incident)
        except DatabaseUnavailable as error:
            log.warning("an incident was not kept", job=job_uuid, miner=miner_hotkey, error=str(error))


def _incident(job: Job, outcome: Outcome) -> Incident | None:
    if not outcome.blame or job.miner is None or job.request.on_trusted_miner:
        return None
    return Incident(job.miner.hotkey, job.uuid, words(outcome.blame)[:64], time.time())


def _frame(job_uuid: str, state: JobState, metadata: StatusMetadata | None) -> str:
    return V0JobStatusUpdate(uuid=job_uuid, status=to_wire(state), metadata=metadata).to_frame()

"""What a validator asks of the miner about jobs: accepted or declined, answered or refused (section 6.6)."""

import asyncio
import re
import uuid
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from compute_horde.lifecycle.failures import problem
from compute_horde.lifecycle.states import JobState
from compute_horde.miner import declines
from compute_horde.miner.connection import Connection
from compute_horde.miner.executors import Executors
from compute_horde.miner.job import Job, envelope, limits_of
from compute_horde.miner.outbox import Outbox
from compute_horde.miner.pool import ClassNotOffered, Pool, Slot
from compute_horde.miner.receipts import Payload, ReceiptBook, receipt_problem
from compute_horde.miner.store import Also, JobRow
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest, empty_answer
from compute_horde.protocol.enums import RejectionReason
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.miner_executor import executor_token
from compute_horde.protocol.receipts import UUID_PATTERN
from compute_horde.protocol.signing import Verifier
from compute_horde.protocol.validator_miner import (
    V0AcceptJobRequest,
    V0DeclineJobRequest,
    V0InitialJobRequest,
    V0JobAcceptedReceiptRequest,
    V0JobFinishedReceiptRequest,
    V0JobRequest,
    frame_is_signed,
)
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.telemetry.vocabulary import Refusal, TryOutcome

log = structlog.get_logger(__name__)

_UUID = re.compile(UUID_PATTERN)


class Refused(Exception):  # noqa: N818 - the domain's word
    """Answered with a ``GenericError``; the connection stays. ``counted``: as which kind of refusal."""

    def __init__(self, text: str, counted: Refusal = Refusal.UNKNOWN_JOB) -> None:
        self.counted = counted
        super().__init__(text)


class Intake:
    """``book`` is None on a trusted miner, which neither checks nor keeps receipts (section 1)."""

    def __init__(
        self, outbox: Outbox, executors: Executors, pool: Pool, verifier: Verifier, book: ReceiptBook | None
    ) -> None:
        self._outbox, self._desk = outbox, outbox.desk
        self._executors, self._supervisor, self._pool = executors, executors.supervisor, pool
        self._verifier, self._book = verifier, book
        self._one_at_a_time = asyncio.Lock()

    async def initial(self, message: V0InitialJobRequest, frame: str, connection: Connection) -> None:
        """Accept or decline; a job that is already here is re-attached and its messages re-sent.

        :raises Refused: the job is another validator's, or its name is no UUID.
        """
        if not _UUID.fullmatch(message.job_uuid):
            raise Refused("job_uuid is not a lower-case UUID", Refusal.MALFORMED)
        async with self._one_at_a_time:
            try:
                if await self._told_again(message.job_uuid, connection):
                    self._desk.metrics.refused(Refusal.REPEATED)
                    return
                decline = self._problem(message, frame, connection.validator)
            except DatabaseUnavailable:
                decline = self._cannot_tell(message.job_uuid)
            if decline is None:
                decline = await self._take(message, connection)
        self._count(decline)
        if decline is not None:
            log.info("job declined", job_uuid=message.job_uuid, reason=decline.reason.value, why=decline.message)
            connection.say(decline)

    def _count(self, decline: V0DeclineJobRequest | None) -> None:
        if decline is None:
            self._desk.metrics.offered(TryOutcome.ACCEPTED)
            return
        busy = decline.reason is RejectionReason.BUSY
        self._desk.metrics.offered(TryOutcome.BUSY if busy else TryOutcome.DECLINED)
        if decline.reason in (RejectionReason.INVALID_SIGNATURE, RejectionReason.INVALID_RECEIPT):
            self._desk.metrics.refused(Refusal.SIGNATURE)

    async def _told_again(self, job_uuid: str, connection: Connection) -> bool:
        """Whether the job was accepted before: then all its messages go out once more.

        One that was declined for fear that it was not stored, and was stored all the same, is put away.
        """
        job = await self._desk.find(job_uuid)
        if job is None:
            return False
        self._check_owner(job, connection)
        if not job.ended and job_uuid not in self._desk.jobs:
            await self._desk.store.drop(job_uuid)
            return False
        await self._outbox.attach(job, connection, claim=True, again=True)
        return True

    def _cannot_tell(self, job_uuid: str) -> V0DeclineJobRequest:
        """:raises Refused: the job is at work, so that it cannot be declined any more."""
        if job_uuid in self._desk.jobs:
            raise Refused(f"The messages of job {job_uuid} cannot be read just now; ask again", Refusal.OTHER)
        return declines.not_stored(job_uuid)

    def _problem(self, message: V0InitialJobRequest, frame: str, validator: str) -> V0DeclineJobRequest | None:
        if frame_is_signed(frame, validator, self._verifier) is False:
            return declines.invalid_signature(message.job_uuid)
        longest, wanted = self._desk.settings.executor_lifetime, self._lifetime(message)
        if longest is not None and wanted > longest:
            return declines.limits_too_long(message.job_uuid, wanted, longest)
        if self._book is None:
            return None
        payload, signature = message.job_started_receipt_payload, message.job_started_receipt_signature
        why = self._receipt_problem(
            payload, signature, validator, job_uuid=message.job_uuid, executor_class=message.executor_class
        )
        return declines.invalid_receipt(message.job_uuid, why) if why else None

    async def _take(self, message: V0InitialJobRequest, connection: Connection) -> V0DeclineJobRequest | None:
        try:
            slot = self._pool.reserve(message.executor_class)
        except ClassNotOffered:
            return declines.class_not_offered(message.job_uuid, message.executor_class)
        if slot is None:
            return await self._busy(message)
        try:
            await self._accept(message, connection, slot)
        except (DatabaseUnavailable, SQLAlchemyError) as error:
            slot.release()
            log.error("job not stored", job_uuid=message.job_uuid, error=type(error).__name__)
            self._desk.spawn(self._take_back(message.job_uuid))
            return declines.not_stored(message.job_uuid)
        except BaseException:
            slot.release()
            raise
        return None

    async def _busy(self, message: V0InitialJobRequest) -> V0DeclineJobRequest:
        at = message.job_started_receipt_payload.timestamp.timestamp()
        excuses = await self._book.excuses(message.executor_class, at, message.job_uuid) if self._book else []
        return declines.busy(message.job_uuid, message.executor_class, excuses)

    async def _take_back(self, job_uuid: str) -> None:
        """A connection that was lost in the middle may have stored the job all the same."""
        await self._desk.retries.until_done(partial(self._drop, job_uuid), "a declined job")

    async def _drop(self, job_uuid: str) -> None:
        async with self._one_at_a_time:
            if job_uuid not in self._desk.jobs:
                await self._desk.store.drop(job_uuid)

    def _lifetime(self, message: V0InitialJobRequest) -> float:
        """How long the job may hold an executor by its own limits, in seconds."""
        limits = limits_of(message, self._desk.settings.executor_startup_limit)
        return limits.overall(message.executor_class)

    async def _accept(self, message: V0InitialJobRequest, connection: Connection, slot: Slot) -> None:
        now, lifetime = self._desk.clock(), self._lifetime(message)
        row = JobRow(
            job_uuid=message.job_uuid,
            validator=connection.validator,
            executor_class=message.executor_class,
            token=executor_token(message.job_uuid, str(uuid.uuid4())),
            state=JobState.ACCEPTED,
            initial=message.to_frame(),
            request=None,
            created_at=now,
            deadline_at=now + lifetime,
            acknowledged=False,
        )
        accepted = envelope(V0AcceptJobRequest(job_uuid=message.job_uuid))
        started = self._entry(message.job_started_receipt_payload, message.job_started_receipt_signature)
        await self._desk.store.accept(row, accepted, started)
        timers = self._desk.make_timers()
        job = Job(row, now, {accepted.type}, listeners={connection}, claimed=True, slot=slot, timers=timers)
        self._desk.add(job)
        job.on_the_disk = self._desk.settling()
        connection.post(accepted.frame)
        self._supervisor.start(job)
        limits = limits_of(message, self._desk.settings.executor_startup_limit)
        self._executors.arm(job, limits.readiness(message.executor_class), lifetime)
        log.info("job accepted", job_uuid=job.uuid, executor_class=row.executor_class.value)

    async def request(self, message: V0JobRequest, frame: str, connection: Connection) -> None:
        """The whole job, for the executor. :raises Refused: it does not fit the job that was accepted."""
        job = await self._known(message.job_uuid, connection)
        if frame_is_signed(frame, connection.validator, self._verifier) is False:
            raise Refused(f"Invalid signature of V0JobRequest for {job.uuid}", Refusal.SIGNATURE)
        if not job.ended:
            self._check_fits(message, job)
        await self._outbox.attach(job, connection, claim=True)
        if job.ended or job.requested:
            return
        job.requested = True
        if job.row.state is not JobState.ACCEPTED:
            job.timers.disarm("stage")
        self._desk.spawn(self._begin(job, message.to_frame()))

    @staticmethod
    def _check_fits(message: V0JobRequest, job: Job) -> None:
        initial = V0InitialJobRequest.model_validate_json(job.row.initial)
        if message.executor_class is not initial.executor_class:
            other_class = f"Executor class of V0JobRequest differs from the accepted one for {job.uuid}"
            raise Refused(other_class, Refusal.MALFORMED)
        if message.volume is not None and initial.volume is not None:
            raise Refused(f"Received job volume twice for {job.uuid}", Refusal.MALFORMED)

    async def _begin(self, job: Job, frame: str) -> None:
        """The request is stored before the executor has it, so that a restart knows what it may have done."""
        store = partial(self._desk.store.set_request, job.uuid, frame)
        await self._desk.retries.until_done(store, "a job request")
        if not job.ended:
            job.row = job.row._replace(request=frame)
            await self._executors.feed(job)

    async def receipt(
        self, message: V0JobAcceptedReceiptRequest | V0JobFinishedReceiptRequest, connection: Connection
    ) -> None:
        """Check, countersign and store; the first of its kind wins. :raises Refused: it is not good."""
        job = await self._known(message.payload.job_uuid, connection)
        if self._book is not None:
            why = self._receipt_problem(message.payload, message.signature, connection.validator)
            if why:
                raise Refused(f"Invalid {message.payload.receipt_type} for {job.uuid}: {why}", Refusal.SIGNATURE)
        entry = self._entry(message.payload, message.signature)
        if isinstance(message, V0JobFinishedReceiptRequest):
            await self._desk.keep(partial(self._desk.store.acknowledge, job.uuid, entry), "a finished receipt")
            self._given_up(job)
            self._desk.acknowledged(job)
        elif entry is not None:
            await self._desk.keep(partial(self._desk.store.write, entry), "an accepted receipt")

    async def cancel(self, message: V0CancelJobRequest, connection: Connection) -> None:
        """End a job that is under way. How one ended that has ended is told where that was not heard before."""
        job = await self._own(message.job_uuid, connection)
        if job is None or job.acknowledged:
            log.info("nothing to cancel", job_uuid=message.job_uuid[:64])
            return
        log.info("job to be cancelled", job_uuid=job.uuid, state=job.row.state.value)
        await self._executors.cancel(job)
        await self._outbox.attach(job, connection, claim=True)

    async def logs(self, message: V0JobLogsRequest, connection: Connection) -> None:
        """Answered by the job's executor, over this connection, or by the miner."""
        job = await self._own(message.job_uuid, connection)
        if Extension.LOGS not in connection.extensions:
            log.warning("a validator that announced no logs asks for them", validator=connection.validator)
        elif job is None:
            connection.offer(empty_answer(message, "unavailable"))
        else:
            self._executors.ask(job, message, connection)

    async def _own(self, job_uuid: str, connection: Connection) -> Job | None:
        """A job of this validator's."""
        job = await self._desk.find(job_uuid)
        return job if job is not None and job.row.validator == connection.validator else None

    def _given_up(self, job: Job) -> None:
        """A finished receipt for a job under way: the validator is through with it, so is the executor."""
        if not job.ended:
            found = problem("validator_failed", "The validator closed the job before the executor had finished it")
            self._desk.spawn(self._desk.fail(job, found))

    def _entry(self, payload: Payload, signature: str) -> Also | None:
        return self._book.entry(payload, signature) if self._book else None

    def _receipt_problem(self, payload: Payload, signature: str, validator: str, **expected: str) -> str | None:
        hotkey = self._book.hotkey if self._book else ""
        expected |= {"miner_hotkey": hotkey, "validator_hotkey": validator}
        return receipt_problem(payload, signature, self._verifier, **expected)

    async def _known(self, job_uuid: str, connection: Connection) -> Job:
        job = await self._desk.find(job_uuid)
        if job is None:
            raise Refused(f"Unknown job: {job_uuid}")
        self._check_owner(job, connection)
        return job

    @staticmethod
    def _check_owner(job: Job, connection: Connection) -> None:
        if job.row.validator != connection.validator:
            raise Refused(f"Unknown job: {job.uuid}", Refusal.NOT_OURS)

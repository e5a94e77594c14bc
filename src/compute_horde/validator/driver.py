"""Drives one job to its end over its miner's link (section 6.5)."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import structlog

from compute_horde.lifecycle import failures
from compute_horde.lifecycle.deadlines import RunningDeadline
from compute_horde.lifecycle.states import IllegalTransition, JobState
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY, Message
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.receipts import JobAcceptedPayload, JobFinishedPayload
from compute_horde.protocol.signing import Signer
from compute_horde.protocol.validator_miner import (
    V0DeclineJobRequest,
    V0HordeFailedRequest,
    V0JobAcceptedReceiptRequest,
    V0JobFailedRequest,
    V0JobFinishedReceiptRequest,
    V0JobFinishedRequest,
)
from compute_horde.transport.channel import ChannelClosed, DialFailed
from compute_horde.validator import outcomes, requests
from compute_horde.validator.dispatch import Dispatcher, Unroutable
from compute_horde.validator.journal import Journal
from compute_horde.validator.logs import LogDesk
from compute_horde.validator.miner_link import JobMessage, MinerLink
from compute_horde.validator.receipts import Payload, ReceiptBook
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.stages import LATE, is_past, stages_after_ready, state_of
from compute_horde.validator.store import IssuedReceipt, Job, StaleJob, Store
from compute_horde.validator.wish import CancelWish, CancelWished

log = structlog.get_logger(__name__)

Pauses = Callable[[], Iterator[float]]
MESSAGE_TOO_BIG = 1009


class Ended(Exception):  # noqa: N818 - an event more than an error
    """The job has come to its end."""

    def __init__(self, outcome: outcomes.Outcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.state.value)


class Driver:
    """One job, from routing to the last receipt."""

    def __init__(
        self,
        job: Job,
        settings: ValidatorSettings,
        signer: Signer,
        store: Store,
        journal: Journal,
        dispatcher: Dispatcher,
        logs: LogDesk,
        pauses: Pauses,
    ) -> None:
        self._job, self._settings, self._signer = job, settings, signer
        self._store, self._journal, self._dispatcher, self._pauses = store, journal, dispatcher, pauses
        self._logs = logs
        self._wish = CancelWish(wished=job.cancel_requested)
        self._state = job.state
        self.has_ended = False
        self._limits = requests.limits_of(job.request, settings)
        self._started_at = job.started_at or time.time()
        self._deadline = RunningDeadline(time.monotonic(), 0)
        self._retries = pauses()
        self._link: MinerLink | None = None
        self._started: IssuedReceipt | None = None  # set once the miner may have been promised a reservation

    async def run(self) -> None:
        """Drive the job; one that was under way when the validator stopped goes on where it was."""
        try:
            try:
                await self._drive()
            except CancelWished:
                await self._call_off()
        except (Ended, Unroutable) as end:
            await self._end(end.outcome)
        except Exception as error:
            log.exception("job driver failed", job=self._job.uuid)
            await self._end(outcomes.unhandled(error))
        finally:
            if self._link is not None:
                await self._link.close()
            self._logs.end(self._job.uuid)

    def cancel(self) -> None:
        """The user's wish, which is kept already. It is acted upon at once; doing so twice changes nothing."""
        self._wish.wish()

    async def _drive(self) -> None:
        await (self._ask() if self._job.miner is None else self._resume())
        await self._reach(JobState.ACCEPTED, "miner_silent")
        await self._reach(JobState.EXECUTOR_READY, "executor_late")
        if self._state is JobState.EXECUTOR_READY:
            await self._tell(requests.job_request(self._job.request, self._signer))
        before = self._state
        for stage in stages_after_ready(self._limits, streaming=self._job.request.streaming_details is not None):
            if not is_past(before, stage.target):
                self._deadline.extend(stage.limit)
                await self._reach(stage.target, stage.late)

    # -- the beginning

    async def _ask(self) -> None:
        """Find a miner and ask it for an executor."""
        async with self._wish.waiting(None):
            self._link = link = await self._dispatcher.dispatch(self._job)
        now = time.time()
        book = self._book(link)
        receipt = book.issue(book.started(now))
        self._deadline = RunningDeadline(time.monotonic(), self._limits.reservation)
        await self._store.assign(self._job.uuid, link.miner, self._started_at, self._wall(), receipt)
        self._wish.check()
        self._started = receipt  # from here on the miner counts as asked
        self._logs.connect(self._job.uuid, link)
        await self._tell(requests.initial_request(self._job.request, self._limits, receipt, self._signer))

    async def _resume(self) -> None:
        """Go on after a restart: the miner replays what it has to say. The time to find it again is granted."""
        if self._job.miner is None:
            raise ValueError("a job without a miner cannot be resumed")
        kept = await self._store.receipts_of(self._job.uuid)
        self._started = next((receipt for receipt in kept if receipt.kind == "JobStartedReceipt"), None)
        self._link = self._dispatcher.link(self._job.miner, self._job)
        self._logs.connect(self._job.uuid, self._link)
        left = (self._job.deadline_at or 0) - time.time()
        grace = self._settings.miner_connect_limit + self._settings.leeway
        self._deadline = RunningDeadline(time.monotonic(), max(left, grace))

    # -- waiting

    async def _reach(self, target: JobState, late: str) -> None:
        """Take the miner's messages until the job is in ``target``, or past it.

        :raises Ended: the job ended, or the running deadline passed.
        """
        while not is_past(self._state, target):
            try:
                async with self._wish.waiting(self._deadline.remaining(time.monotonic())):
                    message = await self._next()
            except TimeoutError:
                raise Ended(outcomes.horde_failed(self._late(late))) from None
            await self._take(message)

    def _late(self, code: str) -> Problem:
        if self._open_link().is_open:
            return failures.problem(code, LATE[code])
        return failures.problem("miner_unreachable", "The connection to the miner was lost for too long")

    async def _next(self) -> JobMessage:
        while True:
            try:
                message = await self._open_link().receive()
            except ChannelClosed as lost:
                await self._reconnect(lost)
            else:
                self._retries = self._pauses()
                return message

    async def _reconnect(self, lost: ChannelClosed) -> None:
        """Dial until the miner is back, then repeat what it may not have got. The caller's deadline ends it."""
        if lost.code == MESSAGE_TOO_BIG:
            found = failures.problem("protocol_error", "The miner sent a message that is larger than allowed")
            raise Ended(outcomes.horde_failed(found))
        link = self._open_link()
        await link.drop()
        for pause in self._retries:
            await asyncio.sleep(pause)
            try:
                await link.open(self._settings.miner_connect_limit)
            except DialFailed as error:
                link.log.warning("miner connection lost", error=str(error))
            else:
                break
        if self._wish.heeded:
            await self._pass_on_wish()
        elif self._state is JobState.RECEIVED and self._started is not None:
            initial = requests.initial_request(self._job.request, self._limits, self._started, self._signer)
            await self._send(initial)
        elif self._state is JobState.EXECUTOR_READY:
            await self._send(requests.job_request(self._job.request, self._signer))

    # -- the user wants no more of it

    async def _call_off(self) -> NoReturn:
        """End the job as cancelled, with the miner's help where it can give it.

        A result that comes all the same wins; nothing else of the miner's counts any more.

        :raises Ended: always.
        """
        self._wish.heed()
        if self._link is None or self._started is None:
            raise Ended(outcomes.cancelled())
        knows = self._link.extensions is None or Extension.CANCEL in self._link.extensions
        limit = self._settings.cancel_limit if knows else 0  # what has arrived is read even then
        try:
            async with self._wish.waiting(limit):
                if knows and self._link.is_open:
                    await self._pass_on_wish()
                while True:
                    message = await self._next()
                    if isinstance(message, outcomes.Ending):
                        raise Ended(outcomes.from_miner(message))
        except TimeoutError:
            unconfirmed = "The job was cancelled; the miner did not say in time that it has stopped"
            raise Ended(outcomes.cancelled(unconfirmed) if knows else outcomes.cancelled()) from None

    async def _pass_on_wish(self) -> None:
        """:raises Ended: the miner does not know how to cancel: it is left alone with the job."""
        if Extension.CANCEL not in (self._open_link().extensions or ()):
            raise Ended(outcomes.cancelled())
        await self._send(V0CancelJobRequest(job_uuid=self._job.uuid))

    # -- what the miner says

    async def _take(self, message: JobMessage) -> None:
        match message:
            case V0DeclineJobRequest() | V0JobFailedRequest() | V0HordeFailedRequest() | V0JobFinishedRequest():
                raise Ended(outcomes.from_miner(message))
        new, metadata = state_of(message)
        try:
            await self._advance(new, metadata)
        except IllegalTransition as why:
            log.info("message of the miner ignored", job=self._job.uuid, why=str(why))

    async def _advance(self, new: JobState, metadata: StatusMetadata | None) -> None:
        old, before = self._state, self._deadline
        accepted = self._accepted_receipt() if old is JobState.RECEIVED else None
        if new is JobState.ACCEPTED:
            readiness = self._limits.readiness(self._job.request.executor_class)
            self._deadline = RunningDeadline(time.monotonic(), readiness)
        elif not is_past(old, JobState.EXECUTOR_READY):
            self._deadline = RunningDeadline(time.monotonic(), self._limits.leeway)
        issued = self._book(self._open_link()).issue(accepted) if accepted else None
        try:
            await self._journal.advance(
                self._job, old, new, metadata=metadata, deadline_at=self._wall(), receipt=issued
            )
        except IllegalTransition:
            self._deadline = before
            raise
        self._state = new
        if accepted and issued:
            await self._tell(V0JobAcceptedReceiptRequest(payload=accepted, signature=issued.signature))

    def _accepted_receipt(self) -> JobAcceptedPayload:
        return self._book(self._open_link()).accepted(time.time())

    # -- the end

    async def _end(self, outcome: outcomes.Outcome) -> None:
        outcome = outcomes.as_wished(outcome) if self._wish.wished else outcomes.unwished(outcome)
        payload = self._finished_receipt(outcome)
        issued = self._issue(payload) if payload else None
        miner = self._link.miner.hotkey if self._link and self._is_paid_miner() else None
        try:
            await self._journal.end(self._job, self._state, outcome, miner, issued)
        except (IllegalTransition, StaleJob) as why:
            log.warning("end of a job ignored", job=self._job.uuid, why=str(why))
            return
        self.has_ended = True
        self._logs.end(self._job.uuid)
        if payload and issued:
            await self._hand_over(V0JobFinishedReceiptRequest(payload=payload, signature=issued.signature))

    async def _hand_over(self, receipt: V0JobFinishedReceiptRequest) -> None:
        """The last receipt is worth one more connection."""
        link = self._open_link()
        try:
            await link.send(receipt)
        except ChannelClosed:
            with contextlib.suppress(ChannelClosed, DialFailed):
                await link.open(self._settings.miner_connect_limit)
                await link.send(receipt)

    def _finished_receipt(self, outcome: outcomes.Outcome) -> JobFinishedPayload | None:
        """None where no receipt was sent before: a job that found no miner."""
        if self._link is None or self._started is None:
            return None
        paid = outcome.state is JobState.COMPLETED and self._is_paid_miner()
        return self._book(self._link).finished(time.time(), self._started_at, paid=paid)

    def _is_paid_miner(self) -> bool:
        return self._link is not None and self._link.miner.hotkey != TRUSTED_MINER_HOTKEY

    # -- small things

    async def _tell(self, message: Message) -> None:
        """Send, unless the user wants no more of the job."""
        async with self._wish.waiting(None):
            await self._send(message)

    async def _send(self, message: Message) -> None:
        """Send; a loss is noticed, and made good, where the answer is waited for."""
        with contextlib.suppress(ChannelClosed):
            await self._open_link().send(message)

    def _issue(self, payload: Payload) -> IssuedReceipt:
        return self._book(self._open_link()).issue(payload)

    def _book(self, link: MinerLink) -> ReceiptBook:
        request = self._job.request
        return ReceiptBook(self._signer, request.uuid, link.miner.hotkey, request.executor_class, self._limits)

    def _open_link(self) -> MinerLink:
        if self._link is None:
            raise RuntimeError("the job has no miner yet")
        return self._link

    def _wall(self) -> float:
        """The running deadline on the clock that survives a restart."""
        return time.time() + self._deadline.at - time.monotonic()

"""One attempt of a job, at one miner: from the offer to how it ended (section 6.5)."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import NoReturn

import structlog

from compute_horde.lifecycle import failures
from compute_horde.lifecycle.clock import elapsed
from compute_horde.lifecycle.deadlines import RunningDeadline
from compute_horde.lifecycle.states import IllegalTransition, JobState
from compute_horde.protocol.base import Message
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.scheduling import AttemptDetails
from compute_horde.protocol.validator_miner import (
    V0DeclineJobRequest,
    V0HordeFailedRequest,
    V0JobAcceptedReceiptRequest,
    V0JobFailedRequest,
    V0JobFinishedRequest,
)
from compute_horde.telemetry.vocabulary import Peer, Refusal
from compute_horde.transport.channel import ChannelClosed, DialFailed
from compute_horde.validator import outcomes, requests
from compute_horde.validator.miner_link import JobMessage, MinerLink
from compute_horde.validator.parting import Parting, book_of
from compute_horde.validator.queue.view import Answer
from compute_horde.validator.rows import IssuedReceipt, Job, Trial
from compute_horde.validator.stages import LATE, is_past, stages_after_ready, state_of
from compute_horde.validator.supply import Place
from compute_horde.validator.tools import Tools
from compute_horde.validator.wish import CancelWish

log = structlog.get_logger(__name__)

MESSAGE_TOO_BIG = 1009

OFFERS = 5
"""So often an offer is made to a miner whose connection breaks before it has answered; each has its full time."""

DISK_SECONDS = 30.0
"""How long a job waits for the disk before a miner may run it."""


class Ended(Exception):  # noqa: N818 - an event more than an error
    """The attempt, or the job, has come to its end."""

    def __init__(self, outcome: outcomes.Outcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.state.value)


class Declined(Exception):  # noqa: N818 - an event more than an error
    """The miner does not take the job; nothing of it was begun. ``answer``: busy, declined, or unreachable where
    the connection was lost before it had said anything.
    """

    def __init__(self, outcome: outcomes.Outcome, answer: Answer) -> None:
        self.outcome, self.answer = outcome, answer
        super().__init__(outcome.message)


class Attempt:
    """``job`` is its row as this attempt has brought it. ``accepted`` is called when the miner has taken it, and
    answers how long the job may still wait if this attempt fails.
    """

    def __init__(
        self,
        job: Job,
        tools: Tools,
        wish: CancelWish,
        link: MinerLink,
        place: Place,
        attempts: int,
        accepted: Callable[[], float],
    ) -> None:
        self.job, self.link, self.place = job, link, place
        self._tools, self._wish, self._attempts, self._accepted = tools, wish, attempts, accepted
        self._limits = requests.limits_of(job.request, tools.settings)
        self._deadline = RunningDeadline(elapsed(), 0)
        self._retries = tools.pauses()
        self._started: IssuedReceipt | None = None  # set once the miner may have been promised a reservation
        self._on_disk: asyncio.Task[None] | None = None  # who has the job
        self._offers = 1
        self.is_over = False  # the miner has said how it ended, or may be asked the same again
        self.away_since: float | None = None

    # -- the beginning

    async def offer(self, trials: tuple[Trial, ...]) -> None:
        """Ask the miner for an executor. :raises CancelWished: nobody was asked."""
        book = book_of(self.job, self.link, self._tools)
        receipt = book.issue(book.started(time.time()))
        self._deadline = RunningDeadline(elapsed(), self._limits.reservation)
        self.job = await self._tools.journal.assign(self.job, self.link.miner, self._wall(), receipt, trials)
        self._on_disk = self._tools.disk.begin()
        self._wish.check()
        self._started = receipt  # from here on the miner counts as asked
        self._tools.logs.connect(self.job.uuid, self.link)
        await self._tell(self._initial(receipt))

    async def resume(self) -> None:
        """Go on after a restart: the miner replays what it has to say. The time to find it again is granted."""
        kept = await self._tools.store.receipts_of(self.job.name)
        self._started = next((receipt for receipt in kept if receipt.kind == "JobStartedReceipt"), None)
        self._on_disk = self._tools.disk.begin()
        self._tools.logs.connect(self.job.uuid, self.link)
        left = (self.job.deadline_at or 0) - time.time()
        grace = self._tools.settings.miner_connect_limit + self._tools.settings.leeway
        self._deadline = RunningDeadline(elapsed(), max(min(left, self._longest()), grace))

    @property
    def was_offered(self) -> bool:
        """Whether the miner was asked."""
        return self._started is not None

    @property
    def was_accepted(self) -> bool:
        return is_past(self.job.state, JobState.ACCEPTED)

    async def run(self) -> outcomes.Outcome:
        """How it ended. :raises Declined: :raises CancelWished:"""
        try:
            await self._reach(JobState.ACCEPTED, "miner_silent")
            await self._reach(JobState.EXECUTOR_READY, "executor_late")
            if self.job.state is JobState.EXECUTOR_READY:
                await self._disk_has_it()
                await self._tell(self._request())
            before, streaming = self.job.state, self.job.request.streaming_details is not None
            for stage in stages_after_ready(self._limits, streaming=streaming):
                if not is_past(before, stage.target):
                    self._deadline.extend(stage.limit)
                    await self._reach(stage.target, stage.late)
        except Ended as end:
            return end.outcome
        raise RuntimeError("the last stage ends by its result")

    async def _disk_has_it(self) -> None:
        """From here on the miner may run the job: not even a power failure may make us give it to another one.

        :raises Ended: the disk does not take it.
        """
        if self._on_disk is None or self._on_disk.done():
            return
        begun = elapsed()
        try:
            async with self._wish.waiting(DISK_SECONDS):
                await asyncio.shield(self._on_disk)
        except TimeoutError:
            text = "The validator could not bring the job to its disk in time"
            raise Ended(outcomes.horde_failed(failures.problem("validator_failed", text))) from None
        self._deadline.extend(elapsed() - begun)  # the executor's time has not begun

    # -- waiting

    async def _reach(self, target: JobState, late: str) -> None:
        """Take the miner's messages until the job is in ``target``, or past it.

        :raises Ended: the job ended, or the running deadline passed.
        """
        while not is_past(self.job.state, target):
            try:
                async with self._wish.waiting(self._deadline.remaining(elapsed())):
                    message = await self._next()
            except TimeoutError:
                raise self._missed(outcomes.horde_failed(self._late(late))) from None
            if message is not None:
                await self._take(message)

    def _missed(self, outcome: outcomes.Outcome) -> Exception:
        """Without a connection nobody knows whether the miner would have taken the job: it is asked again."""
        if self.was_accepted or self.link.is_alive:
            return Ended(outcome)
        self.is_over = True
        return Declined(outcome, Answer.UNREACHABLE)

    def _late(self, code: str) -> Problem:
        if self.link.is_alive:
            return failures.problem(code, LATE[code])
        return failures.problem("miner_unreachable", "The connection to the miner was lost for too long")

    async def _next(self) -> JobMessage | None:
        """None: the connection had to be made anew."""
        try:
            message = await self.link.receive()
        except ChannelClosed as lost:
            await self._reconnect(lost)
            return None
        self._retries = self._tools.pauses()
        return message

    async def _reconnect(self, lost: ChannelClosed) -> None:
        """Dial until the miner is back, then repeat what it may not have got. The caller's deadline ends it."""
        if lost.code == MESSAGE_TOO_BIG:
            found = failures.problem("protocol_error", "The miner sent a message that is larger than allowed")
            raise Ended(outcomes.horde_failed(found))
        await self.link.drop()
        self.away_since = self.away_since or time.time()
        for pause in self._retries:
            await asyncio.sleep(pause)
            try:
                await self.link.open(self._tools.settings.miner_connect_limit)
            except DialFailed as error:
                self.link.log.warning("miner connection lost", error=str(error))
            else:
                break
        self.away_since = None
        self._tools.metrics.reconnected(Peer.MINER)
        if self._wish.heeded:
            await self._pass_on_wish()
        elif not self.was_accepted and self._started is not None:
            if self._offers < OFFERS:
                self._offers += 1
                self._deadline = RunningDeadline(elapsed(), self._limits.reservation)
            await self._send(self._initial(self._started))
        elif self.job.state is JobState.EXECUTOR_READY:
            await self._send(self._request())

    # -- the user wants no more of it

    async def call_off(self) -> outcomes.Outcome:
        """How the attempt ends, with the miner's help where it can give it.

        A result that comes all the same wins; nothing else of the miner's counts any more.
        """
        self._wish.heed()
        try:
            await self._stop()
        except Ended as end:
            return end.outcome

    async def _stop(self) -> NoReturn:
        if self._started is None:
            raise Ended(outcomes.cancelled())
        knows = self.link.extensions is None or Extension.CANCEL in self.link.extensions
        limit = self._tools.settings.cancel_limit if knows else 0  # what has arrived is read even then
        try:
            async with self._wish.waiting(limit):
                if knows and self.link.is_open:
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
        if Extension.CANCEL not in (self.link.extensions or ()):
            raise Ended(outcomes.cancelled())
        await self._send(V0CancelJobRequest(job_uuid=self.job.name))

    # -- what the miner says

    async def _take(self, message: JobMessage) -> None:
        match message:
            case V0DeclineJobRequest() if not self.was_accepted:
                self.is_over = True
                answer = Answer.BUSY if outcomes.says_busy(message) else Answer.DECLINED
                raise Declined(outcomes.from_miner(message), answer)
            case V0DeclineJobRequest() | V0JobFailedRequest() | V0HordeFailedRequest() | V0JobFinishedRequest():
                self.is_over = True
                raise Ended(outcomes.from_miner(message))
        new, metadata = state_of(message)
        try:
            await self._advance(new, metadata)
        except IllegalTransition as why:
            self._tools.metrics.refused(Refusal.ILLEGAL_TRANSITION)
            log.info("message of the miner ignored", job=self.job.uuid, why=str(why))

    async def _advance(self, new: JobState, metadata: StatusMetadata | None) -> None:
        before, first = self._deadline, not self.was_accepted
        if new is JobState.ACCEPTED:
            self._deadline = RunningDeadline(elapsed(), self._limits.readiness(self.job.request.executor_class))
        elif not is_past(self.job.state, JobState.EXECUTOR_READY):
            self._deadline = RunningDeadline(elapsed(), self._limits.leeway)
        book = book_of(self.job, self.link, self._tools)
        accepted = book.accepted(time.time()) if first else None
        issued = book.issue(accepted) if accepted else None
        try:
            self.job = await self._tools.journal.advance(
                self.job,
                new,
                metadata=self._told(new, metadata),
                deadline_at=self._wall(),
                receipt=issued,
                queue_left_s=self._accepted() if first else None,
            )
        except IllegalTransition:
            self._deadline = before
            raise
        if accepted and issued:
            await self._tell(V0JobAcceptedReceiptRequest(payload=accepted, signature=issued.signature))

    def _told(self, new: JobState, metadata: StatusMetadata | None) -> StatusMetadata | None:
        """With the number of the attempt: always where it begins, and with all statuses of a later one."""
        if self.job.attempt == 1 and new is not JobState.ACCEPTED:
            return metadata
        miner = self.link.miner.hotkey if new is JobState.ACCEPTED else None
        details = AttemptDetails(
            number=self.job.attempt, of=max(self._attempts, self.job.attempt), miner_hotkey=miner
        )
        return (metadata or StatusMetadata()).model_copy(update={"attempt": details})

    # -- the end

    def parting(self, outcome: outcomes.Outcome) -> Parting:
        """What is left to say to the miner when the attempt has ended like this."""
        over = self.is_over
        return Parting.of(self.job, self.link, self._tools, outcome, asked=self.was_offered, over=over)

    async def close(self) -> None:
        """Nothing is said any more."""
        self.place.free()
        await self.link.close()

    # -- small things

    async def _tell(self, message: Message) -> None:
        """Send, unless the user wants no more of the job."""
        async with self._wish.waiting(None):
            await self._send(message)

    async def _send(self, message: Message) -> None:
        """Send; a loss is noticed, and made good, where the answer is waited for."""
        with contextlib.suppress(ChannelClosed):
            await self.link.send(message)

    def _initial(self, receipt: IssuedReceipt) -> Message:
        return requests.initial_request(self.job.request, self._limits, receipt, self._tools.signer)

    def _request(self) -> Message:
        return requests.job_request(self.job.request, self.job.name, self._tools.signer)

    def _longest(self) -> float:
        return self._limits.overall(self.job.request.executor_class)

    def _wall(self) -> float:
        """The running deadline on the clock that survives a restart."""
        return time.time() + self._deadline.at - elapsed()

"""Drives one job: it finds a miner, is attempted, perhaps waits and is attempted again, and ends."""

import time

import structlog

from compute_horde.lifecycle.clock import elapsed
from compute_horde.lifecycle.states import IllegalTransition, JobState
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.enums import Fault
from compute_horde.protocol.scheduling import AttemptDetails, QueueDetails
from compute_horde.telemetry.logs import bind_job
from compute_horde.telemetry.vocabulary import Refusal, TryOutcome
from compute_horde.validator import outcomes
from compute_horde.validator.attempt import Attempt, Declined, Ended
from compute_horde.validator.counting import fault_of
from compute_horde.validator.miner_link import MinerLink
from compute_horde.validator.outcomes import Outcome
from compute_horde.validator.quest import Quest
from compute_horde.validator.queue.view import Answer
from compute_horde.validator.rows import FailedAttempt, IssuedReceipt, Job, StaleJob, words
from compute_horde.validator.scheduling import terms_of
from compute_horde.validator.supply import Place
from compute_horde.validator.tools import Tools
from compute_horde.validator.wish import CancelWish, CancelWished

log = structlog.get_logger(__name__)


class Driver:
    """One job, from its first look for a miner to the last receipt.

    ``job`` is its row; ``attempt`` is there while a miner has been asked for it.
    """

    def __init__(self, job: Job, tools: Tools) -> None:
        self.job, self._tools = job, tools
        self.terms = terms_of(job.request, tools.settings)
        self._wish = CancelWish(wished=job.cancel_requested)
        self._forsaken = False
        self.quest = Quest(job, self.terms, tools, self._wish)
        self.attempt: Attempt | None = None
        self.has_ended = self.is_stale = False
        self.at_work_since: float | None = None  # on the elapsed clock, while a miner has accepted it

    async def run(self) -> None:
        """Drive the job; one that was under way when the validator stopped goes on where it was."""
        try:
            await self._drive()
        except StaleJob as why:
            self.is_stale = True
            self._tools.metrics.refused(Refusal.STALE_CLAIM)
            log.warning("job is left to whoever has it now", job=self.job.uuid, why=str(why))
        finally:
            await self._tidy()

    def cancel(self) -> None:
        """The user's wish, which is kept already. It is acted upon at once; doing so twice changes nothing."""
        self._wish.wish()

    def forsake(self) -> None:
        """Another instance of this validator has the job: it ends here, unseen."""
        self._forsaken = True
        self._wish.wish()

    async def _drive(self) -> None:
        try:
            try:
                await self.quest.load(self.job)
                await self._attempts()
            except CancelWished:
                await self._end(await self.attempt.call_off() if self.attempt else outcomes.cancelled())
        except Ended as end:
            await self._end(end.outcome)
        except StaleJob:
            raise
        except Exception as error:
            log.exception("job driver failed", job=self.job.uuid)
            await self._end(outcomes.unhandled(error))

    async def _attempts(self) -> None:
        """One after another, until the job has ended."""
        if self.job.miner is not None:
            await self._resume()
        while True:
            attempt = self.attempt or await self._begin()
            with bind_job(self.job.uuid, self.job.attempt, attempt.link.miner.hotkey):
                await self._attempt(attempt)

    async def _attempt(self, attempt: Attempt) -> None:
        """See one through. :raises Ended: it was the last one. :raises CancelWished:"""
        try:
            outcome = await self._outcome_of(attempt)
        except Declined as no:
            await self._go_on(attempt, no)
        else:
            if not self._deserves_another(attempt, outcome):
                raise Ended(outcome)
            await self._try_again(attempt, outcome)

    async def _outcome_of(self, attempt: Attempt) -> Outcome:
        try:
            return self._judged(await attempt.run())
        finally:
            self.job = attempt.job

    async def _resume(self) -> None:
        """The miner that was asked before the validator stopped."""
        miner = self.job.miner
        if miner is None:
            raise ValueError("a job without a miner cannot be resumed")
        link = self._tools.dispatcher.link(miner, self.job)
        place = self._tools.supply.hold(miner.hotkey, self.job.request.executor_class)
        self.attempt = self._make_attempt(link, place)
        if self.attempt.was_accepted:
            self._at_work(place)
        await self.attempt.resume()

    async def _begin(self) -> Attempt:
        try:
            found = await self.quest.find(self.job)
        finally:
            self.job = self.quest.job
        self.attempt = attempt = self._make_attempt(found.link, found.place)
        trials = self.quest.book.unwritten()
        try:
            await attempt.offer(trials)
        finally:
            self.job = attempt.job
        self.quest.book.written(trials)
        return attempt

    def _make_attempt(self, link: MinerLink, place: Place) -> Attempt:
        return Attempt(self.job, self._tools, self._wish, link, place, self.terms.attempts, self._accepted)

    def _accepted(self) -> float:
        """A miner takes the job. Answers how long it may wait if this attempt fails."""
        if self.attempt is not None:
            self._at_work(self.attempt.place)
            self._tools.metrics.tried(TryOutcome.ACCEPTED)
        return self.quest.over(self.job)

    def _at_work(self, place: Place) -> None:
        place.taken()
        if self.at_work_since is None:
            self.at_work_since = elapsed()
            self._tools.matcher.began(self.job)

    def _rests(self) -> None:
        """No miner is at work on it any more."""
        if self.at_work_since is not None:
            self._tools.matcher.ended(self.job)
            self.at_work_since = None

    # -- between attempts

    async def _go_on(self, attempt: Attempt, no: Declined) -> None:
        """The miner did not take the job: nothing was lost but time."""
        hotkey = attempt.link.miner.hotkey
        self._tools.metrics.tried(TryOutcome(no.answer))
        parting = attempt.parting(no.outcome)
        trials = self.quest.declined(hotkey, no)
        outcome = None if no.answer is Answer.BUSY else no.outcome
        self.job = await self._tools.journal.declined(self.job, outcome, parting.receipt, trials)
        self.quest.book.written(trials)
        if no.answer is Answer.UNREACHABLE:
            self._tools.supply.lost(hotkey)
        (attempt.place.refused if no.answer is Answer.BUSY else attempt.place.free)()
        self.attempt = None
        self._tools.dispatcher.leave(parting.say())

    def _judged(self, outcome: Outcome) -> Outcome:
        return outcomes.as_wished(outcome) if self._wish.wished else outcomes.unwished(outcome)

    def _deserves_another(self, attempt: Attempt, outcome: Outcome) -> bool:
        """Whether the failure is not the user's, and there is somebody else to try."""
        if not outcome.is_worth_another or self.job.attempt >= self.terms.attempts:
            return False
        self._exclude(attempt)
        return not self.quest.is_hopeless()

    def _exclude(self, attempt: Attempt) -> None:
        """A miner that failed the job does not get it again; but there is only one trusted miner."""
        if attempt.link.miner.hotkey != TRUSTED_MINER_HOTKEY:
            self.quest.excluded.add(attempt.link.miner.hotkey)

    async def _try_again(self, attempt: Attempt, outcome: Outcome) -> None:
        self._note_end(attempt, outcome)
        number, now = self.job.attempt + 1, time.time()
        pause = self.terms.pause_before(number)
        left = self.quest.over(self.job)
        failed = self._failed(attempt, outcome, now)
        parting = attempt.parting(outcome)
        self.quest.book.note(failed.miner_hotkey, self._answer(attempt), failed.message)
        trials = self.quest.book.unwritten()
        self.job = await self._tools.journal.try_again(
            self.job,
            outcome,
            failed,
            not_before=now + pause,
            queue=QueueDetails(
                time_limit_s=left, reason=f"Attempt {failed.number} failed; the next one begins in {pause:g} s"
            ),
            attempt=AttemptDetails(number=number, of=self.terms.attempts),
            receipt=parting.receipt,
            trials=trials,
        )
        self.quest.book.written(trials)
        self.attempt = None
        attempt.place.free()
        self._rests()
        self._tools.dispatcher.leave(parting.say())

    @staticmethod
    def _answer(attempt: Attempt) -> str:
        return Answer.ACCEPTED if attempt.was_accepted else Answer.SILENT

    def _failed(self, attempt: Attempt, outcome: Outcome, now: float) -> FailedAttempt:
        found = outcome.problem
        return FailedAttempt(
            number=self.job.attempt,
            miner_hotkey=attempt.link.miner.hotkey,
            started_at=self.job.started_at,
            ended_at=now,
            code=words(found.code if found else outcome.blame or outcome.state.value)[:64],
            fault=(found.fault if found else Fault.NOBODY).value,
            message=words(outcome.message),
        )

    # -- the end

    async def _end(self, outcome: Outcome) -> None:
        outcome, attempt = self._judged(outcome), self.attempt
        if attempt is not None:
            self.job = attempt.job
        parting = attempt.parting(outcome) if attempt else None
        try:
            await self._close(outcome, parting.receipt if parting else None)
        except IllegalTransition as why:
            log.warning("end of a job ignored", job=self.job.uuid, why=str(why))
            return
        self.has_ended = True
        self._tools.logs.end(self.job.uuid)
        if attempt is not None:
            attempt.place.free()
            self._note_end(attempt, outcome)
        if parting is not None:
            await parting.say()

    async def _close(self, outcome: Outcome, receipt: IssuedReceipt | None) -> None:
        if self._forsaken:
            self.job = await self._tools.journal.forsake(self.job)
            return
        number = self.job.attempt
        details = AttemptDetails(number=number, of=max(self.terms.attempts, number))
        trials = self.quest.book.unwritten()
        self.job = await self._tools.journal.end(self.job, outcome, details, receipt, trials)

    def _note_end(self, attempt: Attempt, outcome: Outcome) -> None:
        if self.at_work_since is None:
            if attempt.was_offered and outcome.state is not JobState.CANCELLED:
                self._tools.metrics.tried(TryOutcome.DECLINED if attempt.is_over else TryOutcome.SILENT)
            return
        if outcome.state in (JobState.COMPLETED, JobState.FAILED):
            seconds = elapsed() - self.at_work_since
            self._tools.run_times.note(self.job.request.executor_class, seconds)
        self._tools.metrics.attempt_ended(outcome.state, fault_of(outcome))

    async def _tidy(self) -> None:
        self.quest.close()
        self._rests()
        if self.attempt is not None:
            await self.attempt.close()
        self._tools.counting.forget(self.job.uuid)
        self._tools.logs.end(self.job.uuid)

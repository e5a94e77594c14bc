"""One job's way to a miner: at once where an executor is free, else through the queue, and on after a failure."""

import asyncio
import time
from collections.abc import Sequence

import structlog

from compute_horde.lifecycle.clock import elapsed
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.scheduling import AttemptDetails, QueueDetails
from compute_horde.telemetry.vocabulary import TryOutcome
from compute_horde.validator.attempt import Declined, Ended
from compute_horde.validator.matcher import Ticket, pool_of
from compute_horde.validator.outcomes import Outcome
from compute_horde.validator.queue.explain import reason
from compute_horde.validator.queue.order import Waiting
from compute_horde.validator.queue.view import Answer
from compute_horde.validator.rows import Job, Trial
from compute_horde.validator.scheduling import Terms
from compute_horde.validator.search import Found, Search
from compute_horde.validator.tools import Tools
from compute_horde.validator.trials import TrialBook
from compute_horde.validator.verdicts import Candidate, Situation, is_hopeless, verdict
from compute_horde.validator.viewing import known_miners, view_of
from compute_horde.validator.waits import queue_left
from compute_horde.validator.wish import CancelWish

log = structlog.get_logger(__name__)

CLAIM_PATIENCE_SECONDS = 5.0
"""How long an executor is kept for a job that the facilitator has not confirmed."""


class Quest:
    """What is known of a job's miners, over all its attempts.

    ``job``: its row as it is while a miner is looked for; ``excluded``: who does not get it any more.
    """

    def __init__(self, job: Job, terms: Terms, tools: Tools, wish: CancelWish) -> None:
        self.job, self._terms, self._tools, self._wish = job, terms, tools, wish
        self.book = TrialBook()
        self.excluded: set[str] = set()
        self._search: Search | None = None
        self._busy: Outcome | None = None
        self._until: float | None = None  # on the elapsed clock: when it has waited long enough

    async def load(self, job: Job) -> None:
        """What is kept of a job that was queued or tried before."""
        if job.state is JobState.RECEIVED and job.last_failure is None and job.attempt == 1:
            return
        self.book = TrialBook(await self._tools.store.trials_of(job.uuid))
        self.excluded |= self.book.declined()
        if not job.request.on_trusted_miner:
            self.excluded |= {failed.miner_hotkey for failed in await self._tools.store.attempts_of(job.uuid)}

    def left(self, job: Job) -> float:
        """Seconds that the job may still wait."""
        if self._until is not None:
            return max(0.0, self._until - elapsed())
        return queue_left(job, self._terms)

    def waited(self) -> float:
        return self._terms.queue_s - self.left(self.job)

    async def find(self, job: Job) -> Found:
        """An open link to a miner. Meanwhile ``job`` may be queued.

        :raises Ended: nobody will take it. :raises CancelWished:
        """
        self.job = job
        await self._back_off(job)
        if self._search is None:
            self._search = self._new_search(job)
        search = self._search
        while True:
            if (found := await self._next(search)) is None:
                await self._think_it_over(search)
            elif await self._is_ours(found):
                return found

    async def _is_ours(self, found: Found) -> bool:
        """Whether the facilitator has confirmed that the job is ours. If that takes long, the miner is let go."""
        claims, uuid = self._tools.claims, self.job.uuid
        confirmed = not claims.is_open(uuid)
        try:
            if not confirmed:
                async with self._wish.waiting(CLAIM_PATIENCE_SECONDS):
                    await claims.confirmed(uuid)
                    confirmed = True
        except TimeoutError:
            log.warning("the facilitator does not confirm a job", job=uuid)
        finally:
            if not confirmed:
                found.place.free()
                await found.link.close()
        if not confirmed:
            async with self._wish.waiting(None):
                await claims.confirmed(uuid)
        return confirmed

    async def _back_off(self, job: Job) -> None:
        """Pass the pause before the next attempt; a clock that was set back does not make it longer."""
        if job.not_before is None or self._search is not None:
            return
        pause = min(job.not_before - time.time(), self._terms.pause_before(max(job.attempt, 2)))
        if pause > 0:
            try:
                async with self._wish.waiting(pause):
                    await asyncio.Event().wait()
            except TimeoutError:
                return

    def _new_search(self, job: Job) -> Search:
        tools = self._tools
        waiting = Waiting(job.uuid, job.user, self._terms.priority, job.received_at)
        ticket = Ticket(job, waiting, eager=self.left(job) <= 0, excluded=self.excluded)
        return Search(ticket, tools.matcher, tools.dispatcher, tools.supply, self.book, self._unreached)

    async def _unreached(self, hotkey: str, is_news: bool) -> None:
        self._tools.metrics.tried(TryOutcome.UNREACHABLE)
        if is_news and hotkey != TRUSTED_MINER_HOTKEY:
            await self._tools.journal.blame(hotkey, self.job.uuid, "miner_unreachable")

    async def _next(self, search: Search) -> Found | None:
        patience = self.left(self.job) if search.ticket.waits else None
        try:
            async with self._wish.waiting(patience):
                return await search.next()
        except TimeoutError:
            raise Ended(self._verdict(waits=False)) from None

    async def _think_it_over(self, search: Search) -> None:
        """Nobody can take the job now."""
        ticket = search.ticket
        if (end := self._verdict_or_none(waits=not ticket.eager)) is not None:
            raise Ended(end)
        if not ticket.waits:
            await self._wait(ticket)

    async def _wait(self, ticket: Ticket) -> None:
        """The job is queued from here on."""
        job, left, trials = self.job, self.left(self.job), self.book.unwritten()
        if job.state is not JobState.QUEUED:
            place = self._tools.matcher.place_of(ticket)
            queue = QueueDetails(**dict(place), time_limit_s=left, reason=self._why(job))
            attempt = AttemptDetails(number=job.attempt, of=max(self._terms.attempts, job.attempt))
            self.job = await self._tools.journal.enqueue(job, queue, attempt, trials)
        elif job.queued_at is None:
            self.job = await self._tools.journal.waits(job, left, trials)
        self.book.written(trials)
        ticket.job, ticket.waits = self.job, True
        self._until = elapsed() + left
        self._tools.matcher.changed()

    def _why(self, job: Job) -> str:
        """Why it waits, in one sentence."""
        miners = known_miners(
            self._tools.matcher.miners_of(pool_of(job)), job.request.executor_class, self._tools.supply
        )
        return reason(view_of(job, self._terms, miners=miners, trials=self.book.all()))

    def _verdict(self, *, waits: bool) -> Outcome:
        end = self._verdict_or_none(waits=waits)
        assert end is not None  # noqa: S101 - without waiting there is always an end
        return end

    def _verdict_or_none(self, *, waits: bool) -> Outcome | None:
        request = self.job.request
        now = Situation(
            executor_class=request.executor_class,
            trusted=request.on_trusted_miner,
            candidates=self.candidates(),
            last_failure=self.job.last_failure,
            busy=self._busy,
            waits=waits,
            waited_s=self.waited(),
        )
        return verdict(now)

    def candidates(self) -> Sequence[Candidate]:
        """The miners of the job's pool, as they are known now."""
        pool, supply = pool_of(self.job), self._tools.supply
        return [
            Candidate(
                hotkey=miner.hotkey,
                excluded=miner.hotkey in self.excluded,
                lacks_class=supply.lacks(miner.hotkey, pool.executor_class),
                away=supply.away_for(miner.hotkey) is not None,
            )
            for miner in self._tools.matcher.miners_of(pool)
        ]

    def is_hopeless(self) -> bool:
        """Whether nobody is left who may take the job."""
        return is_hopeless(self.candidates())

    def declined(self, hotkey: str, no: Declined) -> tuple[Trial, ...]:
        """Note a miner's no. Answers what is to be kept."""
        self.book.note(hotkey, no.answer, no.outcome.message)
        if no.answer is Answer.BUSY:
            self._busy = no.outcome
        elif no.answer is Answer.DECLINED:
            self.excluded.add(hotkey)
        return self.book.unwritten()

    def over(self, job: Job) -> float:
        """This attempt needs no miner any more. Answers the seconds that the job may still wait for the next."""
        left = self.left(job)
        self._until = None
        self.close(hurry=False)
        return left

    def close(self, *, hurry: bool = True) -> None:
        search, self._search = self._search, None
        if search is not None:
            search.close(hurry=hurry)

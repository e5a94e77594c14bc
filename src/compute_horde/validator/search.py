"""One job's search for a miner: what the matcher offers is dialled; who is silent for long is not waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import structlog

from compute_horde.lifecycle.clock import RECHECK_SECONDS
from compute_horde.transport.channel import DialFailed
from compute_horde.validator.dispatch import Dispatcher
from compute_horde.validator.matcher import Matcher, Offer, Ticket, pool_of
from compute_horde.validator.miner_link import MinerLink
from compute_horde.validator.queue.view import Answer
from compute_horde.validator.supply import Place, Supply
from compute_horde.validator.trials import TrialBook

log = structlog.get_logger(__name__)

Unreached = Callable[[str, bool], Awaitable[None]]
"""Hears of a miner that could not be reached, and whether that is news for this job."""


class Found(NamedTuple):
    """An open link to a miner that has the class, and the executor that is kept there."""

    link: MinerLink
    place: Place


class Search:
    """From the first :meth:`next` to :meth:`close` the job is among those that look for a miner."""

    def __init__(
        self,
        ticket: Ticket,
        matcher: Matcher,
        dispatcher: Dispatcher,
        supply: Supply,
        book: TrialBook,
        unreached: Unreached,
    ) -> None:
        self.ticket = ticket
        self._matcher, self._dispatcher, self._supply = matcher, dispatcher, supply
        self._book, self._unreached = book, unreached
        self._trying: set[asyncio.Task[Found | None]] = set()
        self._waited_for_news = False
        self._silent = False  # those that are tried have said nothing for a while
        matcher.enter(ticket)

    async def next(self) -> Found | None:
        """A miner; or None when nobody can take the job now, each time that there is reason to think it over.

        Cancelling it loses nothing: call it again, or :meth:`close`.
        """
        while True:
            wanted = self._matcher.want(self.ticket) if not self._trying or self._silent else None
            if wanted is not None and not wanted.done() and self._is_stuck():
                if self._knows_enough():
                    return None
                await asyncio.wait([wanted], timeout=self._dispatcher.stagger_s)
                self._waited_for_news = True
                continue
            news = await self._news(wanted)
            if wanted is not None and wanted.done() and (offer := self._matcher.take(self.ticket)):
                self._try(offer)
            if (found := self._first_found(news)) is not None:
                self._content()
                return found
            if self.ticket.waits and (wanted not in news or not news):
                return None

    def _is_stuck(self) -> bool:
        """Whether it is time to say that the job waits, or to end it."""
        return not self.ticket.waits and not (self.ticket.eager and self._trying)

    def _knows_enough(self) -> bool:
        """Whether no other job is just finding out what a miner has; that is waited for, once and not for long."""
        ticket = self.ticket
        if self._waited_for_news or self._trying:
            return True
        miners = self._matcher.miners_of(pool_of(ticket.job))
        tried = ticket.job.request.executor_class
        return not any(
            self._supply.is_being_tried(m.hotkey, tried) for m in miners if m.hotkey not in ticket.excluded
        )

    async def _news(self, wanted: "asyncio.Future[Offer] | None") -> set[asyncio.Future[Any]]:
        """What has happened, if anything has in good time."""
        waited_for: set[asyncio.Future[Any]] = {*self._trying}
        if wanted is not None:
            waited_for.add(wanted)
        patience = self._dispatcher.stagger_s if wanted is None else RECHECK_SECONDS
        done, _ = await asyncio.wait(waited_for, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if wanted is None and not done:
            self._silent = True
        return done

    def _first_found(self, news: set[asyncio.Future[Any]]) -> Found | None:
        for task in [task for task in self._trying if task in news]:
            self._trying.remove(task)
            if (found := task.result()) is not None:
                return found
        return None

    def _try(self, offer: Offer) -> None:
        self.ticket.trying.add(offer.miner.hotkey)
        self._silent = False
        self._trying.add(asyncio.create_task(self._reach(offer)))

    async def _reach(self, offer: Offer) -> Found | None:
        hotkey, job = offer.miner.hotkey, self.ticket.job
        link = self._dispatcher.link(offer.miner, job)
        found = None
        try:
            if await self._dispatcher.has_class(link, job.request.executor_class):
                found = Found(link, offer.place)
            else:
                offer.place.refused()
                self._book.note(hotkey, Answer.CLASS_NOT_OFFERED, "It has no executors of this class")
        except DialFailed as error:
            log.warning("miner unreachable", job=job.uuid, miner=hotkey, error=str(error))
            self._supply.lost(hotkey)
            is_news = self._book.note(hotkey, Answer.UNREACHABLE, "It could not be reached")
            await self._unreached(hotkey, is_news)
        finally:
            self.ticket.trying.discard(hotkey)
            if found is None:
                offer.place.free()
                await link.close()
        return found

    def _content(self) -> None:
        """A miner was found: what was offered beside it goes back."""
        if (unused := self._matcher.take(self.ticket)) is not None:
            unused.place.free()
        for task in self._trying:  # they go on to their limit, so that who is away is known to be away
            self._dispatcher.leave(_let_go(task))
        self._trying.clear()
        self._silent = False

    def close(self, *, hurry: bool = False) -> None:
        """The job looks no longer. ``hurry``: who is being tried is not waited for."""
        self._matcher.leave(self.ticket)
        if hurry:
            for task in self._trying:
                task.cancel()
        self._content()


async def _let_go(attempt: asyncio.Task[Found | None]) -> None:
    """See an attempt that nobody waits for through to its end."""
    try:
        found = await attempt
    except asyncio.CancelledError:
        attempt.cancel()
        await asyncio.wait([attempt])
        found = None if attempt.cancelled() else attempt.result()
    if found is not None:
        found.place.free()
        await found.link.close()

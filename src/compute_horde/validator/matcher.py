"""Who gets the next free executor: the first of the waiting jobs, in order, that may go to the miner that has one.

No I/O. A job has a :class:`Ticket` from when it begins to look for a miner until one has accepted it. Whatever may
let a job begin calls :meth:`Matcher.wake`; the matching itself is done once per turn of the event loop.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from compute_horde.chain.port import MinerEndpoint
from compute_horde.lifecycle.clock import RECHECK_SECONDS
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.scheduling import QueuePlace
from compute_horde.validator.queue.order import Waiting, in_order
from compute_horde.validator.rows import Job
from compute_horde.validator.supply import Place, Supply

MAX_COUNTED = 200
"""In a longer queue a newcomer's position is not counted at once."""


class Pool(NamedTuple):
    """Jobs that compete for the same executors."""

    executor_class: ExecutorClass
    trusted: bool


def pool_of(job: Job) -> Pool:
    return Pool(job.request.executor_class, job.request.on_trusted_miner)


class Offer(NamedTuple):
    """A miner that may be asked now, and the executor that is kept for this."""

    miner: MinerEndpoint
    place: Place


@dataclass(eq=False)
class Ticket:
    """One job that looks for a miner.

    * ``eager``: it does not wait, so it tries every miner once, whatever is presumed of it
    * ``excluded``: miners that do not get it; ``tried``: those that an eager one has tried; ``trying``: those that
      are being dialled for it
    * ``waits``: it has been reported as queued
    """

    job: Job
    waiting: Waiting
    eager: bool
    excluded: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    trying: set[str] = field(default_factory=set)
    waits: bool = False
    wanted: "asyncio.Future[Offer] | None" = None

    @property
    def is_hungry(self) -> bool:
        return self.wanted is not None and not self.wanted.done()


Candidates = Callable[[Pool], Sequence[MinerEndpoint]]
"""The miners of a pool in the order in which to try them."""


class Matcher:
    """Tickets by pool. ``changed`` is called when jobs begin or cease to wait, and after each matching."""

    def __init__(self, supply: Supply, candidates: Candidates, max_priority: int) -> None:
        self._supply, self._candidates, self._max_priority = supply, candidates, max_priority
        self._pools: dict[Pool, dict[str, Ticket]] = {}
        self._running: dict[Pool, Counter[str]] = {}
        self._orders: dict[Pool, list[str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due: asyncio.Handle | None = None
        self.changed: Callable[[], None] = lambda: None
        supply.changed = self.wake

    # tickets

    def enter(self, ticket: Ticket) -> None:
        """The job begins to look for a miner. Nothing is given to it before :meth:`want`."""
        pool = pool_of(ticket.job)
        self._pools.setdefault(pool, {})[ticket.job.uuid] = ticket
        self._orders.pop(pool, None)

    def leave(self, ticket: Ticket) -> None:
        """It looks no longer. Doing so twice is fine."""
        pool = pool_of(ticket.job)
        if self._pools.get(pool, {}).pop(ticket.job.uuid, None) is None:
            return
        self._orders.pop(pool, None)
        if (unused := self.take(ticket)) is not None:
            unused.place.free()
        if not self._pools[pool]:
            del self._pools[pool]
        self.wake()
        self.changed()

    def want(self, ticket: Ticket) -> "asyncio.Future[Offer]":
        """Ask for a miner; who has none to wait for gets one at once. The offer is given by the future."""
        if ticket.wanted is None:
            ticket.wanted = asyncio.get_running_loop().create_future()
            self._match(pool_of(ticket.job))
        return ticket.wanted

    def take(self, ticket: Ticket) -> Offer | None:
        """Take up what was given, if anything was, and want no more for now."""
        wanted, ticket.wanted = ticket.wanted, None
        return wanted.result() if wanted is not None and wanted.done() else None

    def began(self, job: Job) -> None:
        """The job is at a miner: its user has one more running."""
        self._running.setdefault(pool_of(job), Counter())[job.user] += 1
        self._orders.pop(pool_of(job), None)

    def ended(self, job: Job) -> None:
        """The job has left its miner."""
        running = self._running[pool_of(job)]
        running[job.user] -= 1
        if not running[job.user]:
            del running[job.user]
        self._orders.pop(pool_of(job), None)

    # what others want to know

    def place_of(self, ticket: Ticket) -> QueuePlace:
        """Where a job stands that is about to wait. Among very many, its position is told later."""
        pool = pool_of(ticket.job)
        waiting = [t for t in self._pools[pool].values() if t.waits or t is ticket]
        position = None
        if len(waiting) <= MAX_COUNTED:
            order = [name for name in self._order(pool) if self._pools[pool][name] in waiting]
            position = order.index(ticket.job.uuid) + 1
        return QueuePlace(position=position, length=len(waiting))

    def waiting(self) -> Iterable[tuple[Pool, Sequence[str]]]:
        """By pool, the jobs that are reported as queued, the next one first."""
        for pool, tickets in self._pools.items():
            names = [name for name in self._order(pool) if tickets[name].waits]
            if names:
                yield pool, names

    def waiting_pools(self) -> Sequence[Pool]:
        """Those in which jobs are reported as queued."""
        return [pool for pool, tickets in self._pools.items() if any(ticket.waits for ticket in tickets.values())]

    def miners_of(self, pool: Pool) -> Sequence[MinerEndpoint]:
        return self._candidates(pool)

    # matching

    def wake(self) -> None:
        """Match in this turn of the event loop."""
        if self._due is None and self._pools:
            self._due = asyncio.get_running_loop().call_soon(self._match_all)

    def close(self) -> None:
        for handle in (self._timer, self._due):
            if handle is not None:
                handle.cancel()
        self._pools.clear()

    def _match_all(self) -> None:
        self._due = None
        for pool in list(self._pools):
            self._match(pool)
        self.changed()

    def _match(self, pool: Pool) -> None:
        known = self._candidates(pool)
        miners = self._with_room(pool, known)
        tickets = self._pools.get(pool, {})
        if miners or any(ticket.eager for ticket in tickets.values()):
            for ticket in [tickets[name] for name in self._order(pool)]:
                if ticket.is_hungry and (miners or ticket.eager):
                    self._serve(pool, ticket, miners, known)
                    miners = self._with_room(pool, miners)
        self._set_timer()

    def _with_room(self, pool: Pool, miners: Sequence[MinerEndpoint]) -> Sequence[MinerEndpoint]:
        return [miner for miner in miners if self._supply.room(miner.hotkey, pool.executor_class)]

    def _serve(
        self, pool: Pool, ticket: Ticket, miners: Sequence[MinerEndpoint], known: Sequence[MinerEndpoint]
    ) -> None:
        barred = ticket.excluded | ticket.tried | ticket.trying
        fit = [miner for miner in miners if miner.hotkey not in barred]
        fit.sort(key=lambda miner: self._supply.must_be_tried(miner.hotkey, pool.executor_class))
        if not fit and ticket.eager:
            fit = [miner for miner in known if miner.hotkey not in barred]
        if fit and ticket.wanted is not None:
            if ticket.eager:
                ticket.tried.add(fit[0].hotkey)
            ticket.wanted.set_result(Offer(fit[0], self._supply.hold(fit[0].hotkey, pool.executor_class)))

    def _order(self, pool: Pool) -> list[str]:
        if pool not in self._orders:
            waiting = [ticket.waiting for ticket in self._pools[pool].values()]
            running = self._running.get(pool, Counter[str]())
            self._orders[pool] = [w.job_uuid for w in in_order(waiting, running, self._max_priority)]
        return self._orders[pool]

    def _set_timer(self) -> None:
        """Come back when the first of the pauses is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pauses = [
            pause
            for pool in self._pools
            for miner in self._candidates(pool)
            if (pause := self._supply.pause(miner.hotkey, pool.executor_class)) > 0
        ]
        if pauses:
            self._timer = asyncio.get_running_loop().call_later(min(*pauses, RECHECK_SECONDS), self.wake)

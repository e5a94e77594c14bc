"""How many executors are presumed to be free at each miner. In memory; wrong guesses cost an answer, no more.

What is known, the best first: what the miner pushed; else its manifest less our own jobs there. A miner that was
never reached has one place, to try. A miner that answers busy has none until there is news of it, or a growing
pause is over; one that is away, or lacks the class, none until such a pause is over, and then one, to try.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from compute_horde.lifecycle.clock import elapsed
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.scheduling import FreeExecutors
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.routing import Manifest, offers

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
PATIENCE = 3
"""Busy answers in a row after which even a miner that says it has room is left alone for a while."""


@dataclass
class Pause:
    """Grows with each refusal in a row. Times are seconds of the supply's clock."""

    times: int = 0
    until: float = 0.0
    since: float = 0.0

    def grow(self, now: float) -> None:
        self.since = self.since if self.times else now
        self.until = now + min(FIRST_PAUSE_S * 2**self.times, LONGEST_PAUSE_S)
        self.times = min(self.times + 1, 10)


@dataclass
class _Miner:
    pushed: FreeExecutors | None = None
    pushes: int = 0
    away: Pause | None = None
    refused: dict[ExecutorClass, Pause] = field(default_factory=dict)
    held: Counter[ExecutorClass] = field(default_factory=Counter)
    ours: Counter[ExecutorClass] = field(default_factory=Counter)
    lines: int = 0  # connections over which it pushes
    tells: bool = False  # whether it did when it was last reached


class Place:
    """An executor at a miner, kept for one job: held while it is offered, ours while the job is there."""

    def __init__(self, supply: "Supply", hotkey: str, executor_class: ExecutorClass) -> None:
        self._supply, self.hotkey, self.executor_class = supply, hotkey, executor_class
        self._miner = supply.miner(hotkey)
        self._pushes = self._miner.pushes
        self._tally: Counter[ExecutorClass] | None = self._miner.held
        self._tally[executor_class] += 1

    def taken(self) -> None:
        """The miner has accepted the job, or had before a restart."""
        if self._tally is not self._miner.held:
            return
        self._count(self._miner.ours)
        self._miner.refused.pop(self.executor_class, None)
        if self._miner.pushed is not None and self._miner.pushes == self._pushes:
            left = self._miner.pushed.get(self.executor_class, 0) - 1
            self._miner.pushed = {**self._miner.pushed, self.executor_class: max(left, 0)}
        self._supply.changed()

    def refused(self) -> None:
        """The miner has said that it is busy, or lacks the class: believed unless it has said more since."""
        stale = self._miner.pushes != self._pushes
        pause = self._miner.refused.setdefault(self.executor_class, Pause())
        if stale and pause.times < PATIENCE:
            pause.times += 1
        else:
            pause.grow(self._supply.now())
        self.free()

    def free(self) -> None:
        """Nothing of ours is there any more. Doing so twice changes nothing."""
        if self._tally is self._miner.ours:
            self._miner.refused.pop(self.executor_class, None)
        if self._tally is not None:
            self._count(None)
            self._supply.changed()

    def _count(self, tally: Counter[ExecutorClass] | None) -> None:
        for counted, by in ((self._tally, -1), (tally, 1)):
            if counted is not None:
                counted[self.executor_class] += by
        self._tally = tally


class Supply:
    """All miners. ``changed`` is called after anything that may let a job begin."""

    def __init__(self, reputation: Reputation, clock: Callable[[], float] = elapsed) -> None:
        self._reputation, self.now = reputation, clock
        self._miners: dict[str, _Miner] = {}
        self.changed: Callable[[], None] = lambda: None

    def miner(self, hotkey: str) -> _Miner:
        return self._miners.setdefault(hotkey, _Miner())

    def hold(self, hotkey: str, executor_class: ExecutorClass) -> Place:
        return Place(self, hotkey, executor_class)

    # news

    def reached(self, hotkey: str, manifest: Manifest) -> None:
        """The miner was reached and has said what it has."""
        miner = self.miner(hotkey)
        is_news = miner.away is not None or self._reputation.manifests.get(hotkey) != manifest
        self._reputation.manifests[hotkey] = manifest
        miner.away = None
        if is_news:
            self.changed()

    def lost(self, hotkey: str) -> None:
        """The miner could not be reached."""
        miner = self.miner(hotkey)
        miner.away = miner.away or Pause()
        if miner.away.until <= self.now():
            miner.away.grow(self.now())

    def line_opened(self, hotkey: str) -> None:
        """A connection over which the miner tells how many executors are free."""
        self.miner(hotkey).lines += 1
        self.miner(hotkey).tells = True

    def line_closed(self, hotkey: str) -> None:
        """With the last one, what it said is no longer known."""
        miner = self.miner(hotkey)
        miner.lines -= 1
        if miner.lines == 0:
            miner.pushed = None

    def pushed(self, hotkey: str, free: FreeExecutors) -> None:
        """The miner has told how many executors are free."""
        miner = self.miner(hotkey)
        miner.pushed, miner.pushes = dict(free), miner.pushes + 1
        for name, count in free.items():
            pause = miner.refused.get(name)
            if count and pause and pause.times < PATIENCE:
                pause.until = 0.0
        self.changed()

    # what is presumed

    def room(self, hotkey: str, executor_class: ExecutorClass) -> int:
        """How many jobs of the class may be offered to the miner now, beside those that are being offered."""
        if hotkey not in self._miners and hotkey not in self._reputation.manifests:
            return 1
        miner = self.miner(hotkey)
        held = miner.held[executor_class]
        if self.pause(hotkey, executor_class) > 0:
            return 0
        if self.must_be_tried(hotkey, executor_class):
            return max(0, 1 - held)
        if miner.pushed is not None:
            return max(0, miner.pushed.get(executor_class, 0) - held)
        listed = self._reputation.manifests[hotkey].get(executor_class, 0)
        return max(0, listed - miner.ours[executor_class] - held)

    def must_be_tried(self, hotkey: str, executor_class: ExecutorClass) -> bool:
        """Whether only an attempt can tell: it was never reached, was away, was busy, or lacks the class."""
        miner, manifest = self.miner(hotkey), self._reputation.manifests.get(hotkey)
        if manifest is None or miner.away is not None or not offers(manifest, executor_class):
            return True
        refused = miner.refused.get(executor_class)
        return refused is not None and refused.until > 0  # the pause is over: one attempt

    def is_being_tried(self, hotkey: str, executor_class: ExecutorClass) -> bool:
        """Whether an attempt is under way that will tell what the miner has."""
        return self.must_be_tried(hotkey, executor_class) and self.miner(hotkey).held[executor_class] > 0

    def pause(self, hotkey: str, executor_class: ExecutorClass) -> float:
        """Seconds until the miner may be tried again; 0: now."""
        miner = self.miner(hotkey)
        pauses = (miner.away, miner.refused.get(executor_class))
        return max([0.0, *(pause.until - self.now() for pause in pauses if pause)])

    def tells(self, hotkey: str) -> bool:
        """Whether the miner tells how many executors are free."""
        return self.miner(hotkey).tells

    def lacks(self, hotkey: str, executor_class: ExecutorClass) -> bool:
        """Whether the miner has said that it has no executors of the class."""
        manifest = self._reputation.manifests.get(hotkey)
        return manifest is not None and not offers(manifest, executor_class)

    def offers(self, hotkey: str) -> Manifest | None:
        """Its executors by class, busy ones included; None: it has not said yet."""
        return self._reputation.manifests.get(hotkey)

    def away_for(self, hotkey: str) -> float | None:
        """Seconds since the miner is known to be away; None: it is not."""
        away = self.miner(hotkey).away
        return None if away is None else self.now() - away.since

    def slots(self, hotkey: str, executor_class: ExecutorClass) -> int:
        """Executors of the class that the miner has in all, as far as is known; none while it is away."""
        manifest: Mapping[ExecutorClass, int] = self._reputation.manifests.get(hotkey, {})
        return 0 if self.miner(hotkey).away else manifest.get(executor_class, 0)

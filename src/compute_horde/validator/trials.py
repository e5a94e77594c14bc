"""What miners answered to one job: kept for whoever asks why it has not started."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from compute_horde.protocol.explanation import MAX_MINERS
from compute_horde.validator.rows import Trial, words

DECLINED = "declined"


class TrialBook:
    """The last answer of each miner. What is new is written with the job's next transaction."""

    def __init__(self, kept: Iterable[Trial] = (), clock: Callable[[], float] = time.time) -> None:
        self._trials = {trial.miner_hotkey: trial for trial in kept}
        self._clock = clock
        self._unwritten: dict[str, Trial] = {}

    def note(self, miner_hotkey: str, answer: str, message: str) -> bool:
        """Whether this miner had not answered like this before."""
        before = self._trials.get(miner_hotkey)
        trial = Trial(miner_hotkey, answer, words(message), 1, self._clock())
        if before is not None:
            trial = replace(trial, tries=before.tries + 1)
        elif len(self._trials) >= MAX_MINERS:
            return False
        self._trials[miner_hotkey] = self._unwritten[miner_hotkey] = trial
        return before is None or before.answer != answer

    def unwritten(self) -> tuple[Trial, ...]:
        """What the next transaction takes along."""
        return tuple(self._unwritten.values())

    def written(self, trials: Iterable[Trial]) -> None:
        """These are in the database."""
        for trial in trials:
            if self._unwritten.get(trial.miner_hotkey) is trial:
                del self._unwritten[trial.miner_hotkey]

    def declined(self) -> set[str]:
        """Miners that said no for good."""
        return {trial.miner_hotkey for trial in self._trials.values() if trial.answer == DECLINED}

    def all(self) -> Sequence[Trial]:
        """The newest first."""
        return sorted(self._trials.values(), key=lambda trial: -trial.last_at)

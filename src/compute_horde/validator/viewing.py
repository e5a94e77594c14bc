"""What is known of a job, as the queue's rules want it told."""

import time
from collections.abc import Iterable, Sequence

from compute_horde.chain.port import MinerEndpoint
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.scheduling import QueuePlace
from compute_horde.validator.queue.view import Answer, FailedAttempt, KnownMiner, Trial, View
from compute_horde.validator.rows import FailedAttempt as KeptAttempt
from compute_horde.validator.rows import Job
from compute_horde.validator.rows import Trial as KeptTrial
from compute_horde.validator.scheduling import Terms
from compute_horde.validator.supply import Supply


def known_miners(
    miners: Iterable[MinerEndpoint], executor_class: ExecutorClass, supply: Supply
) -> Sequence[KnownMiner]:
    """What is presumed of each miner that may be asked."""
    return [_known(miner.hotkey, executor_class, supply) for miner in miners]


def _known(hotkey: str, executor_class: ExecutorClass, supply: Supply) -> KnownMiner:
    away, offers = supply.away_for(hotkey), supply.offers(hotkey)
    pause = supply.pause(hotkey, executor_class)
    return KnownMiner(
        hotkey,
        offers=offers,
        free=None if offers is None else supply.room(hotkey, executor_class),
        away_since=None if away is None else time.time() - away,
        asked_again_in_s=pause or None,
    )


def view_of(
    job: Job,
    terms: Terms,
    *,
    miners: Sequence[KnownMiner] = (),
    trials: Iterable[KeptTrial] = (),
    failed: Iterable[KeptAttempt] = (),
    place: QueuePlace | None = None,
    queue_left_s: float | None = None,
    is_confirmed: bool = True,
    miner_away_since: float | None = None,
) -> View:
    """One job."""
    pause = max(0.0, job.not_before - time.time()) if job.not_before and job.queued_at is None else 0.0
    return View(
        job_uuid=job.uuid,
        state=job.state,
        executor_class=job.request.executor_class,
        attempt=job.attempt,
        attempts=max(terms.attempts, job.attempt),
        on_trusted_miner=job.request.on_trusted_miner,
        cancel_wished=job.cancel_requested,
        is_confirmed=is_confirmed,
        retry_in_s=0.0 if job.miner else pause,
        place=place,
        queue_left_s=queue_left_s,
        miners=miners,
        trials=[Trial(t.miner_hotkey, Answer(t.answer), t.message, "", t.tries, t.last_at) for t in trials],
        failed=[FailedAttempt(a.number, a.miner_hotkey, a.code, a.message, a.ended_at) for a in failed],
        miner=job.miner.hotkey if job.miner else None,
        miner_away_since=miner_away_since,
        ending=job.last_failure.problem if job.state.is_terminal and job.last_failure else None,
    )

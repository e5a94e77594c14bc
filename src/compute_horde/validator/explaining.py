"""Answers why a job has not started: what this process knows of it, and what the database does."""

from compute_horde.protocol.explanation import Explanation
from compute_horde.protocol.facilitator_validator import V0ExplainJobRequest, V0ExplainJobResponse
from compute_horde.protocol.scheduling import QueuePlace
from compute_horde.validator.claims import Claims
from compute_horde.validator.driver import Driver
from compute_horde.validator.live import LiveJobs, is_uuid
from compute_horde.validator.matcher import Matcher, pool_of
from compute_horde.validator.places import PlacesNow
from compute_horde.validator.queue.explain import explain
from compute_horde.validator.rows import Job, Trial
from compute_horde.validator.scheduling import terms_of
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.store import Store
from compute_horde.validator.supply import Supply
from compute_horde.validator.viewing import known_miners, view_of
from compute_horde.validator.waits import queue_left


class Explainer:
    """Works for jobs that wait, run or have ended, whichever process drives them."""

    def __init__(
        self,
        settings: ValidatorSettings,
        store: Store,
        claims: Claims,
        matcher: Matcher,
        supply: Supply,
        live: LiveJobs,
        places: PlacesNow,
    ) -> None:
        self._settings, self._store, self._claims = settings, store, claims
        self._matcher, self._supply, self._live, self._places = matcher, supply, live, places

    async def answer(self, request: V0ExplainJobRequest) -> V0ExplainJobResponse:
        """:raises DatabaseUnavailable:"""
        found = await self.explanation(request.job_uuid) if is_uuid(request.job_uuid) else None
        return V0ExplainJobResponse(job_uuid=request.job_uuid, request_id=request.request_id, explanation=found)

    async def explanation(self, job_uuid: str) -> Explanation | None:
        """None: this validator does not know the job. :raises DatabaseUnavailable:"""
        job = await self._store.job(job_uuid)
        if job is None:
            return None
        driver = self._live.driver(job_uuid)
        pool = pool_of(job)
        terms = terms_of(job.request, self._settings)
        attempt = driver.attempt if driver else None
        return explain(
            view_of(
                job,
                terms,
                miners=known_miners(self._matcher.miners_of(pool), pool.executor_class, self._supply),
                trials=await self._trials(job, driver),
                failed=await self._store.attempts_of(job_uuid),
                place=self._place(job_uuid),
                queue_left_s=driver.quest.left(job) if driver else queue_left(job, terms),
                is_confirmed=not self._claims.is_open(job_uuid) or job.miner is not None,
                miner_away_since=attempt.away_since if attempt else None,
            )
        )

    async def _trials(self, job: Job, driver: Driver | None) -> list[Trial]:
        kept = {trial.miner_hotkey: trial for trial in await self._store.trials_of(job.uuid)}
        newer = {trial.miner_hotkey: trial for trial in driver.quest.book.all()} if driver else {}
        return list((kept | newer).values())

    def _place(self, job_uuid: str) -> QueuePlace | None:
        found = self._places.of(job_uuid)
        return QueuePlace(**found.model_dump(exclude={"job_uuid"})) if found else None

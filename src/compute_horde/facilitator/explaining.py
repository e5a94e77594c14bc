"""Why a job has not started, or how it ended: its validator is asked; where it cannot be, we say what we know."""

from collections.abc import Callable
from uuid import uuid4

from compute_horde.facilitator.errors import NO_JOB, ApiError
from compute_horde.facilitator.explain_words import Known, explain
from compute_horde.facilitator.questions import Questions
from compute_horde.facilitator.registry import LiveLink
from compute_horde.facilitator.rows import StoredJob, outline
from compute_horde.facilitator.store import JobStore
from compute_horde.facilitator.switchboard import Switchboard
from compute_horde.facilitator.validators import Link
from compute_horde.protocol.explanation import Explanation
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.facilitator_validator import V0ExplainJobRequest, V0ExplainJobResponse

ANSWER_SECONDS = 5.0


class Explaining:
    """``now``: the wall clock, UNIX seconds; ``answer_s``: how long a validator is waited for."""

    def __init__(
        self,
        store: JobStore,
        board: Switchboard,
        questions: Questions,
        now: Callable[[], float],
        answer_s: float = ANSWER_SECONDS,
    ) -> None:
        self._store, self._board, self._questions = store, board, questions
        self._now, self._answer_s = now, answer_s

    async def explain(self, job_uuid: str, user: str) -> Explanation:
        """:raises ApiError: 404."""
        job = await self._store.get(job_uuid, user)
        if job is None:
            raise ApiError(404, NO_JOB)
        link = await self._board.find(outline(job.row))
        return await self._ask(link, job_uuid) or await self._own_words(job, link)

    async def _ask(self, link: Link | LiveLink | None, job_uuid: str) -> Explanation | None:
        if link is None or Extension.EXPLAIN not in link.extensions:
            return None
        request = V0ExplainJobRequest(job_uuid=job_uuid, request_id=uuid4().hex)
        answer = await self._questions.answer(link, request, self._answer_s)
        told = answer.explanation if isinstance(answer, V0ExplainJobResponse) else None
        return told if told and told.job_uuid == job_uuid else None

    async def _own_words(self, job: StoredJob, link: Link | LiveLink | None) -> Explanation:
        connected = link is not None
        last_seen = None if connected else await self._board.last_seen(job.row["validator"])
        return explain(Known(job.row, job.history[-1], connected, last_seen, self._now()))

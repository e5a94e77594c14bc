"""Questions about jobs that are on their way to validators, one answer each: output, and why a job waits."""

import asyncio
from dataclasses import dataclass

import structlog

from compute_horde.facilitator.registry import LiveLink
from compute_horde.facilitator.replicas import Replicas
from compute_horde.facilitator.streams import happened
from compute_horde.facilitator.validators import Link
from compute_horde.protocol.control import (
    MAX_LOGS_FRAME_BYTES,
    V0JobLogsRequest,
    V0JobLogsResponse,
    empty_answer,
)
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.facilitator_validator import V0ExplainJobRequest, V0ExplainJobResponse

log = structlog.get_logger(__name__)
Request = V0JobLogsRequest | V0ExplainJobRequest
Answer = V0JobLogsResponse | V0ExplainJobResponse


@dataclass(eq=False)
class Question:
    """``woken`` is set when ``answer`` is there. ``asking``: the trip to another replica."""

    target: Link | LiveLink
    request: Request
    woken: asyncio.Event
    answer: Answer | None = None
    asking: "asyncio.Task[None] | None" = None

    def is_answered_by(self, answer: Answer, validator: str) -> bool:
        asked_here = isinstance(self.target, Link) and self.target.hotkey == validator
        return asked_here and self.fits(answer)

    def fits(self, answer: Answer) -> bool:
        """Whether this can be its answer."""
        kind = V0JobLogsResponse if isinstance(self.request, V0JobLogsRequest) else V0ExplainJobResponse
        return isinstance(answer, kind) and self.request.job_uuid == answer.job_uuid

    def reply(self, answer: Answer) -> None:
        self.answer = answer
        self.woken.set()

    def give_up(self) -> None:
        """Nobody will answer: say so in its place."""
        self.reply(nothing_known(self.request))


class Questions:
    """Those that wait for an answer. Holds at most one answer for each of them."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._open: dict[str, Question] = {}

    def ask(self, target: Link | LiveLink, request: Request, woken: asyncio.Event) -> Question:
        """Send a question, through the replica that has the link; whoever asks drops it in the end."""
        question = Question(target, request, woken)
        self._open[request.request_id] = question
        if isinstance(target, Link):
            target.push(request)
        else:
            question.asking = asyncio.create_task(self._ask_there(question, target))
        return question

    async def answer(self, target: Link | LiveLink, request: Request, within_s: float) -> Answer | None:
        """The answer, or None where there is none in time."""
        answered = asyncio.Event()
        question = self.ask(target, request, answered)
        try:
            await happened(answered, within_s)
        finally:
            self.drop(question)
        return question.answer

    def drop(self, question: Question) -> None:
        self._open.pop(question.request.request_id, None)
        if question.asking:
            question.asking.cancel()

    def on_answer(self, answer: Answer, frame: str, validator: str) -> None:
        """Hand an answer to whoever asked. One that is too large, or not asked of this validator, is dropped."""
        question = self._open.get(answer.request_id)
        if question and question.is_answered_by(answer, validator) and len(frame.encode()) <= MAX_LOGS_FRAME_BYTES:
            self.drop(question)
            question.reply(answer)
        else:
            log.debug("answer dropped", job_uuid=answer.job_uuid[:64], validator=validator)

    def lost(self, link: Link) -> None:
        """The connection ended: what it was asked will not be answered."""
        for question in [one for one in self._open.values() if one.target is link]:
            self.drop(question)
            question.give_up()

    async def _ask_there(self, question: Question, target: LiveLink) -> None:
        answer = await self._replicas.ask(target, question.request)
        self._open.pop(question.request.request_id, None)
        if answer is not None and question.fits(answer):
            question.reply(answer)
        else:
            question.give_up()


def nothing_known(request: Request) -> Answer:
    """The answer of somebody who cannot tell."""
    if isinstance(request, V0JobLogsRequest):
        return empty_answer(request, "unavailable")
    return V0ExplainJobResponse(job_uuid=request.job_uuid, request_id=request.request_id)


def needs(request: Request) -> Extension:
    """What a validator has announced that can be asked this."""
    return Extension.LOGS if isinstance(request, V0JobLogsRequest) else Extension.EXPLAIN

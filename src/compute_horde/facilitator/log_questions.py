"""Questions about running jobs' output that are on their way to validators, one answer each."""

import asyncio
import uuid
from dataclasses import dataclass

import structlog

from compute_horde.facilitator.validators import Link
from compute_horde.protocol.control import (
    MAX_LOGS_FRAME_BYTES,
    V0JobLogsRequest,
    V0JobLogsResponse,
    empty_answer,
)

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Question:
    """``woken`` is set when ``answer`` is there."""

    link: Link
    request: V0JobLogsRequest
    woken: asyncio.Event
    answer: V0JobLogsResponse | None = None

    def is_answered_by(self, answer: V0JobLogsResponse, validator: str) -> bool:
        return self.link.hotkey == validator and self.request.job_uuid == answer.job_uuid

    def reply(self, answer: V0JobLogsResponse) -> None:
        self.answer = answer
        self.woken.set()


class LogQuestions:
    """Those that wait for an answer. Holds at most one answer for each of them."""

    def __init__(self) -> None:
        self._open: dict[str, Question] = {}

    def ask(self, link: Link, job_uuid: str, position: int, woken: asyncio.Event) -> Question:
        """Send a question; whoever asks drops it in the end, answered or not."""
        request = V0JobLogsRequest(job_uuid=job_uuid, request_id=uuid.uuid4().hex, position=position)
        question = Question(link, request, woken)
        self._open[request.request_id] = question
        link.push(request)
        return question

    def drop(self, question: Question) -> None:
        self._open.pop(question.request.request_id, None)

    def on_answer(self, answer: V0JobLogsResponse, frame: str, validator: str) -> None:
        """Hand an answer to whoever asked. One that is too large, or not asked of this validator, is dropped."""
        question = self._open.get(answer.request_id)
        if question and question.is_answered_by(answer, validator) and len(frame.encode()) <= MAX_LOGS_FRAME_BYTES:
            self.drop(question)
            question.reply(answer)
        else:
            log.debug("output dropped", job_uuid=answer.job_uuid[:64], validator=validator)

    def lost(self, link: Link) -> None:
        """The connection ended: what it was asked will not be answered."""
        for question in [one for one in self._open.values() if one.link is link]:
            self.drop(question)
            question.reply(empty_answer(question.request, "unavailable"))

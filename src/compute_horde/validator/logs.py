"""Requests for a job's output: down to the job's miner, and its answers up to whoever asked. Pure routing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import structlog

from compute_horde.protocol.control import (
    MAX_LOGS_WAITING,
    V0JobLogsRequest,
    V0JobLogsResponse,
    empty_answer,
)

log = structlog.get_logger(__name__)

Reply = Callable[[V0JobLogsRequest, V0JobLogsResponse], None]
"""Takes the answer to a request back to where the request came from; never waits, and may drop it."""


class Line(Protocol):
    """What reaches a job's miner."""

    def ask_logs(self, request: V0JobLogsRequest) -> bool:
        """Send, without waiting. False: the miner is not connected, or does not know such requests."""
        ...


@dataclass(frozen=True)
class _Question:
    request: V0JobLogsRequest
    reply: Reply

    def answer_empty(self, state: Literal["ended", "unavailable"]) -> None:
        self.reply(self.request, empty_answer(self.request, state))


class LogDesk:
    """Holds at most ``MAX_LOGS_WAITING`` requests of one job. Every request taken is answered once."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._waiting: dict[str, dict[str, _Question]] = {}  # by job and request, the oldest first

    def connect(self, job_uuid: str, line: Line) -> None:
        """The job has a miner. It may be lost and come back until :meth:`end`."""
        self._lines[job_uuid] = line

    def end(self, job_uuid: str) -> None:
        """The job has ended; what was asked about it is answered so."""
        self._lines.pop(job_uuid, None)
        self._answer_all(job_uuid, "ended")

    def lost(self, job_uuid: str, line: Line) -> None:
        """The miner will not answer what it was asked over this line."""
        if self._lines.get(job_uuid) is line:
            self._answer_all(job_uuid, "unavailable")

    def _answer_all(self, job_uuid: str, state: Literal["ended", "unavailable"]) -> None:
        for question in self._waiting.pop(job_uuid, {}).values():
            question.answer_empty(state)

    def ask(self, request: V0JobLogsRequest, reply: Reply) -> None:
        """A request about a job that is under way. A repeated ``request_id`` takes the place of the first."""
        question = _Question(request, reply)
        line = self._lines.get(request.job_uuid)
        if line is None or not line.ask_logs(request):
            question.answer_empty("unavailable")
            return
        waiting = self._waiting.setdefault(request.job_uuid, {})
        waiting.pop(request.request_id, None)
        waiting[request.request_id] = question
        if len(waiting) > MAX_LOGS_WAITING:
            waiting.pop(next(iter(waiting))).answer_empty("unavailable")

    def answer(self, response: V0JobLogsResponse, line: Line) -> None:
        """What a miner answered. Not asked of this miner, or asked no longer: dropped."""
        waiting = self._waiting.get(response.job_uuid, {})
        if self._lines.get(response.job_uuid) is not line or response.request_id not in waiting:
            log.debug("answer to no request for output dropped", job=response.job_uuid[:100])
            return
        question = waiting.pop(response.request_id)
        if not waiting:
            del self._waiting[response.job_uuid]
        question.reply(question.request, response)

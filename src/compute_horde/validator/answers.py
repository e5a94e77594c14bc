"""Answers with output on their way to the facilitator: bounded, beside the statuses and never before them."""

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from compute_horde.protocol.base import Message
from compute_horde.protocol.control import V0JobLogsRequest, V0JobLogsResponse, empty_answer
from compute_horde.protocol.extensions import Extension

log = structlog.get_logger(__name__)

Tell = Callable[[Message, Extension], bool]
"""Sends a message that may be lost to a peer that announced the extension. Whether it did."""

MAX_WAITING_BYTES = 4 * 1024 * 1024
MAX_WAITING_ANSWERS = 4096


class AnswerQueue:
    """What one connection has yet to send. Past its bytes, output is left where it is, to be asked for again."""

    def __init__(self, max_bytes: int = MAX_WAITING_BYTES, max_answers: int = MAX_WAITING_ANSWERS) -> None:
        self._max_bytes, self._max_answers = max_bytes, max_answers
        self._frames: deque[str] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()

    def put(self, request: V0JobLogsRequest, answer: V0JobLogsResponse) -> None:
        """Add an answer; with no room for its output, one without it that says to ask from the same place."""
        if len(self._frames) >= self._max_answers:
            log.warning("too many answers for the facilitator, one is dropped", job=request.job_uuid)
            return
        frame = answer.to_frame()
        if self._bytes + len(frame.encode()) > self._max_bytes:
            frame = empty_answer(request, "more").to_frame()
        self._add(frame)

    def tell(self, message: Message) -> None:
        """Add something else that may be lost."""
        frame = message.to_frame()
        if len(self._frames) >= self._max_answers or self._bytes + len(frame.encode()) > self._max_bytes:
            log.warning("too much for the facilitator, a message is dropped", kind=type(message).__name__)
            return
        self._add(frame)

    def _add(self, frame: str) -> None:
        self._frames.append(frame)
        self._bytes += len(frame.encode())
        self._filled.set()

    async def get(self) -> str:
        """The oldest frame, once there is one; for one reader."""
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame.encode())
        return frame

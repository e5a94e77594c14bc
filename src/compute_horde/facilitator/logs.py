"""A running job's output, as server-sent events: asked of its validator piece by piece (ours)."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, assert_never
from uuid import uuid4

from compute_horde.facilitator.errors import NO_JOB, ApiError
from compute_horde.facilitator.login import Session
from compute_horde.facilitator.questions import Question, Questions
from compute_horde.facilitator.rows import Outline
from compute_horde.facilitator.seats import Seat, Seats
from compute_horde.facilitator.store import JobStore
from compute_horde.facilitator.streams import KEEP_ALIVE, KEEP_ALIVE_SECONDS, RETRY, Streams, happened
from compute_horde.facilitator.switchboard import Switchboard
from compute_horde.facilitator.topics import job_topic
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.control import LOGS_HOLD_SECONDS, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.sdk_facilitator import JobLogs, JobLogsEnd

PRINTING = frozenset({JobState.VOLUMES_READY, JobState.STREAMING_READY, JobState.EXECUTION_DONE})
"""An executor can be asked in these."""


@dataclass(frozen=True)
class Pace:
    """Seconds.

    * ``keep_alive``: between comments when nothing else is sent
    * ``answer``: after so long a question counts as lost
    * ``least``: between two questions; more for a user with many streams
    * ``pause``, ``longest_pause``: before asking again where nobody could tell, or where an empty answer came
      sooner than the first of them; doubles from one to the other

    ``rate``: characters a second that one follower is sent, whatever its miner answers.
    """

    keep_alive: float = KEEP_ALIVE_SECONDS
    answer: float = LOGS_HOLD_SECONDS + 10
    least: float = 0.05
    pause: float = 1
    longest_pause: float = 10
    rate: float = 1024 * 1024


class Logs:
    """Each follower has one question on its way and holds one answer, so a slow reader fills no memory."""

    def __init__(
        self,
        store: JobStore,
        streams: Streams,
        board: Switchboard,
        questions: Questions,
        pace: Pace,
    ) -> None:
        self.store, self.board, self.questions, self.pace = store, board, questions, pace
        self.seats = Seats()
        self._streams = streams

    async def seat(self, job_uuid: str, user: str) -> Seat:
        """A place to follow one of the user's jobs from. :raises ApiError: 404, or 429: all are taken."""
        if await self.store.outline(job_uuid, user) is None:
            raise ApiError(404, NO_JOB)
        return self.seats.take(user, job_uuid)

    async def stream(
        self, session: Session, job_uuid: str, position: int, seat: Seat
    ) -> AsyncGenerator[bytes, None]:
        """SSE text: ``logs`` events, then one ``end``; no ``end`` when the login ends or the service stops.

        A job that ended before its executor said that there is no more ends as ``unavailable``: the rest is in
        its result.
        """
        seat.sit()
        try:
            with self._streams.woken_by(job_topic(job_uuid)) as woken:
                follower = _Follower(self, woken, seat, job_uuid, position)
                try:
                    yield f": connected\n{RETRY}\n".encode()
                    while self._streams.is_open(session):
                        woken.clear()
                        for text in await follower.step(await self.store.outline(job_uuid, session.hotkey)):
                            yield text
                        if follower.ended:
                            return
                        await happened(woken, follower.patience())
                finally:
                    follower.leave()
        finally:
            seat.leave()


class _Follower:
    """What one stream knows. Moments are the loop's."""

    def __init__(self, logs: Logs, woken: asyncio.Event, seat: Seat, job_uuid: str, position: int) -> None:
        self._logs, self._woken, self._seat, self._uuid, self._position = logs, woken, seat, job_uuid, position
        self._clock = asyncio.get_running_loop().time
        self._question: Question | None = None
        self._state: JobState | None = None
        self._pause = logs.pace.pause
        self._ask_at: float | None = None
        self._asked_at = 0.0
        self._silent_since = self._clock()
        self.ended = False

    async def step(self, job: Outline | None) -> list[bytes]:
        """What to send now that the job is seen like this; first an answer that came before the job's end."""
        texts = self._read()
        if not self.ended and (job is None or job.state.is_terminal):
            texts.append(self._end("unavailable"))
        if job and not self.ended:
            await self._ask(job)
            if not texts and self._clock() - self._silent_since >= self._logs.pace.keep_alive:
                texts.append(KEEP_ALIVE)
        if texts:
            self._silent_since = self._clock()
        return texts

    def patience(self) -> float:
        """How long nothing need be done, unless something happens."""
        moments = [self._silent_since + self._logs.pace.keep_alive]
        if self._ask_at is not None:
            moments.append(self._ask_at)
        return max(0.0, min(moments) - self._clock())

    def leave(self) -> None:
        if self._question:
            self._logs.questions.drop(self._question)
            self._question = None

    def _read(self) -> list[bytes]:
        answer = self._question.answer if self._question else None
        if not isinstance(answer, V0JobLogsResponse):
            return []
        self._question, size = None, sum(len(piece.text) for piece in answer.pieces)
        if answer.pieces and answer.position <= self._position:  # would be sent again and again
            self._ask_later()
            return []
        self._position = answer.position
        texts = [_piece(answer)] if answer.pieces else []
        match answer.state:
            case "ended":
                texts.append(self._end("ended"))
            case "more" if size or self._clock() - self._asked_at >= self._logs.pace.pause:
                self._pause = self._logs.pace.pause
                least = self._logs.pace.least * self._seat.slowness
                self._ask_at = self._clock() + max(least, size / self._logs.pace.rate)
            case "more" | "unavailable":
                self._ask_later()
            case _:
                assert_never(answer.state)
        return texts

    def _ask_later(self) -> None:
        self._ask_at = self._clock() + self._pause
        self._pause = min(2 * self._pause, self._logs.pace.longest_pause)

    def _end(self, reason: Literal["ended", "unavailable"]) -> bytes:
        self.ended = True
        return f"event: end\ndata: {JobLogsEnd(reason=reason).to_frame()}\n\n".encode()

    async def _ask(self, job: Outline) -> None:
        """Ask, if it is time: the job has moved on, the pause is over, or an answer is overdue."""
        now = self._clock()
        if job.state is not self._state:
            self._state = job.state
            if self._question is None:
                self._ask_at = now if job.state in PRINTING else None
        if self._ask_at is None or now < self._ask_at:
            return
        self.leave()
        link = await self._logs.board.find(job)
        if link is None or Extension.LOGS not in link.extensions:
            self._ask_later()
        else:
            self._asked_at = now
            request = V0JobLogsRequest(job_uuid=self._uuid, request_id=uuid4().hex, position=self._position)
            self._question = self._logs.questions.ask(link, request, self._woken)
            self._ask_at = now + self._logs.pace.answer


def _piece(answer: V0JobLogsResponse) -> bytes:
    data = JobLogs(position=answer.position, pieces=answer.pieces).to_frame()
    return f"id: {answer.position}\nevent: logs\ndata: {data}\n\n".encode()

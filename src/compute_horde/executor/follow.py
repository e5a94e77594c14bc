"""Answers to whoever follows a job's output: held until there is some, at a bounded rate."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from compute_horde.executor.printed import Printed
from compute_horde.protocol.control import (
    LOGS_HOLD_SECONDS,
    LOGS_PIECE_CHARS,
    MAX_LOGS_WAITING,
    LogPiece,
    V0JobLogsRequest,
    V0JobLogsResponse,
)

RATE_BYTES = 1024 * 1024
"""Of one job's output, in a second, over the link."""

GATHER_SECONDS = 0.02
"""Small writes that come so close together go into one answer."""

Answer = Callable[[V0JobLogsResponse], None]


class Allowance:
    """A token bucket that may be overdrawn. ``rate``: bytes a second, and the most that is saved up."""

    def __init__(self, rate: float = RATE_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._left, self._at = rate, clock()

    def delay(self) -> float:
        """Seconds until something may be spent."""
        now = self._clock()
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, -self._left / self._rate)

    def spend(self, size: int) -> None:
        self._left -= size


class Follower:
    """The requests for one job's output. ``answer`` must not block.

    At most :data:`MAX_LOGS_WAITING` wait; one more, and the oldest is answered with nothing.
    """

    def __init__(
        self,
        printed: Printed,
        answer: Answer,
        allowance: Allowance | None = None,
        *,
        hold_s: float = LOGS_HOLD_SECONDS,
        gather_s: float = GATHER_SECONDS,
    ) -> None:
        self._printed, self._reply = printed, answer
        self._allowance = allowance or Allowance()
        self._hold_s, self._gather_s = hold_s, gather_s
        self._waiting: dict[str, tuple[V0JobLogsRequest, asyncio.Task[None]]] = {}
        self._over = False

    def ask(self, request: V0JobLogsRequest) -> None:
        """Answer now or later; asked again under the same name, only once."""
        if (same := self._waiting.pop(request.request_id, None)) is not None:
            same[1].cancel()
        if self._over:
            self._answer(request)
            return
        if len(self._waiting) >= MAX_LOGS_WAITING:
            oldest, task = self._waiting.pop(next(iter(self._waiting)))
            task.cancel()
            self._say(oldest, [], min(oldest.position, self._printed.total), ended=False)
        self._waiting[request.request_id] = (request, asyncio.create_task(self._serve(request)))

    def drop(self) -> None:
        """The connection is gone, and whoever asked over it."""
        for _, task in self._taken():
            task.cancel()

    def end(self) -> None:
        """Nothing more will be printed: answer all that wait, and what is still asked at once."""
        self._over = True
        self._printed.end()
        for request, task in self._taken():
            task.cancel()
            self._answer(request)

    def _taken(self) -> list[tuple[V0JobLogsRequest, "asyncio.Task[None]"]]:
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())

    async def _serve(self, request: V0JobLogsRequest) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._hold_s):
                await self._printed.behind(request.position)
        if self._printed.total > request.position:
            if not self._printed.ended:
                await asyncio.sleep(self._gather_s)
            while delay := self._allowance.delay():  # noqa: ASYNC110 - others may have spent meanwhile
                await asyncio.sleep(delay)
        self._waiting.pop(request.request_id, None)
        self._answer(request)

    def _answer(self, request: V0JobLogsRequest) -> None:
        pieces, position = self._printed.read(request.position, LOGS_PIECE_CHARS)
        self._allowance.spend(sum(len(piece.text.encode()) for piece in pieces))
        self._say(request, pieces, position, ended=self._printed.ended and position == self._printed.total)

    def _say(self, request: V0JobLogsRequest, pieces: list[LogPiece], position: int, *, ended: bool) -> None:
        answer = V0JobLogsResponse(
            job_uuid=request.job_uuid,
            request_id=request.request_id,
            state="ended" if ended else "more",
            position=position,
            pieces=pieces,
        )
        self._reply(answer)

"""Requests for one job's output on their way to its executor, and the answers on their way back."""

from collections import deque
from typing import Protocol

from compute_horde.protocol.control import (
    MAX_LOGS_WAITING,
    LogsState,
    V0JobLogsRequest,
    V0JobLogsResponse,
    empty_answer,
)


class Asker(Protocol):
    """Whoever asked: gets the answer, or loses it when it is gone or too slow. Must not block."""

    def offer(self, response: V0JobLogsResponse) -> None: ...


class LogRoutes:
    """Who asked for a job's output. Nothing is stored; at most :data:`MAX_LOGS_WAITING` wait at a time."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[V0JobLogsRequest, Asker]] = {}
        self._to_pass_on: deque[V0JobLogsRequest] = deque(maxlen=MAX_LOGS_WAITING)
        self._passing_on = False

    def ask(self, request: V0JobLogsRequest, asker: Asker) -> bool:
        """Note a request; the oldest is answered with nothing when there are too many.

        Under a name that waits already, the newer asker gets the answer. True: somebody has to begin to take
        requests by :meth:`next`; False: somebody is at it.
        """
        self._waiting.pop(request.request_id, None)
        if len(self._waiting) >= MAX_LOGS_WAITING:
            oldest, its_asker = self._waiting.pop(next(iter(self._waiting)))
            its_asker.offer(empty_answer(oldest, "more"))
        self._waiting[request.request_id] = (request, asker)
        self._to_pass_on.append(request)
        begin, self._passing_on = not self._passing_on, True
        return begin

    def next(self) -> V0JobLogsRequest | None:
        """The next request that the executor has not seen and that still waits; None: stop taking."""
        while self._to_pass_on:
            request = self._to_pass_on.popleft()
            if (waiting := self._waiting.get(request.request_id)) and waiting[0] is request:
                return request
        self._passing_on = False
        return None

    def answer(self, response: V0JobLogsResponse) -> None:
        """The executor answered. An answer that nobody waits for is dropped."""
        _, asker = self._waiting.pop(response.request_id, (None, None))
        if asker is not None:
            asker.offer(response)

    def close(self, state: LogsState) -> None:
        """The executor will not answer any more: tell all that wait."""
        waiting, self._waiting = self._waiting, {}
        self._to_pass_on.clear()
        for request, asker in waiting.values():
            asker.offer(empty_answer(request, state))

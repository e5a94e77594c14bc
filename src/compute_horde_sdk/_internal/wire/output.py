"""What a running job prints, followed over HTTP (ours)."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import httpx
from pydantic import ValidationError

from compute_horde.protocol.control import LogPiece
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.sdk_facilitator import JobLogs
from compute_horde_sdk._internal.exceptions import ComputeHordeConnectionError, ComputeHordeError
from compute_horde_sdk._internal.port import OutputPiece
from compute_horde_sdk._internal.wire.answers import error_of, malformed, of_transport, retry_after_s
from compute_horde_sdk._internal.wire.body import read_whole
from compute_horde_sdk._internal.wire.http import FAILED, MAX_RETRY_AFTER_S, Facilitator
from compute_horde_sdk._internal.wire.sse import (
    EventTooLarge,
    ServerSentEvent,
    SSEParser,
    is_event_stream,
    read_events,
)
from compute_horde_sdk._internal.wiring import REDIAL_CAP_S, Wiring

CANNOT_STREAM = frozenset({405, 406, 410, 501})
MAX_REFUSAL_BYTES = 1024 * 1024
LASTING_S = 5.0
"""A stream that lived this long was a good one, even if nothing was printed."""


class OutputEnded(Exception):  # noqa: N818 - reads as what happened
    """Nothing more will come."""


async def follow_output(
    facilitator: Facilitator, wiring: Wiring, job_uuid: str
) -> AsyncGenerator[OutputPiece, None]:
    """See :meth:`Horde.output <compute_horde_sdk._internal.port.Horde.output>`."""
    if Extension.LOGS not in await facilitator.extensions():
        return
    follower = Follower(facilitator, wiring, f"/api/v1/jobs/{job_uuid}/logs/")
    try:
        while True:
            async with aclosing(follower.connection()) as connection:
                async for piece in connection:
                    yield piece
            await follower.pause()
    except OutputEnded:
        return


def _pieces(event: ServerSentEvent) -> Iterable[LogPiece]:
    """:raises OutputEnded: it is the last event."""
    if event.event == "end":
        raise OutputEnded
    return JobLogs.model_validate_json(event.data).pieces if event.event == "logs" else ()


class Follower:
    """Position, offsets and patience over any number of connections."""

    def __init__(self, facilitator: Facilitator, wiring: Wiring, path: str) -> None:
        self._facilitator, self._wiring, self._path = facilitator, wiring, path
        self._printed: dict[str, int] = {}
        self._position = ""
        self._failures, self._waited, self._asked = 0, 0.0, 0.0
        self._failure: ComputeHordeError = ComputeHordeConnectionError("the stream of output broke off")

    async def connection(self) -> AsyncGenerator[OutputPiece, None]:
        """What one connection brings; it has broken off when this ends.

        :raises OutputEnded: this was all.
        :raises ComputeHordeError: refused.
        """
        parser = SSEParser(self._position)
        opened_at, self._asked = self._wiring.clock(), 0.0
        try:
            async with self._facilitator.stream(self._path, self._position) as response:
                if not is_event_stream(response):
                    await self._refused(response)
                    return
                async with aclosing(read_events(response, parser, self._wiring.stream_silence_s)) as events:
                    async for event in events:
                        for piece in self._unseen(_pieces(event)):
                            yield piece
                        self._position, self._failures, self._waited = event.id, 0, 0.0
        except FAILED as error:
            self._failure = of_transport(error)
        except (ValidationError, EventTooLarge):
            self._failure = malformed("the stream of output is unreadable")
        if self._wiring.clock() - opened_at >= LASTING_S:
            self._failures, self._waited = 0, 0.0

    async def pause(self) -> None:
        """Wait before the next connection.

        :raises ComputeHordeError: it has failed for too long.
        """
        self._failures += 1
        pause = min(self._wiring.backoff(self._failures), REDIAL_CAP_S)
        if self._waited + pause > self._wiring.retry_s or self._asked > MAX_RETRY_AFTER_S:
            raise self._failure
        pause = max(pause, self._asked)
        self._waited += pause
        await self._wiring.sleep(pause)

    async def _refused(self, response: httpx.Response) -> None:
        """:raises OutputEnded: there is no such stream here.

        :raises ComputeHordeError: another try would not help.
        """
        if response.status_code in CANNOT_STREAM:
            raise OutputEnded
        if response.is_success:
            raise malformed("the facilitator answered with something else than a stream of output")
        async with asyncio.timeout(self._wiring.request_s):
            error = error_of(await read_whole(response, MAX_REFUSAL_BYTES))
        if response.status_code == 400 and self._position:
            self._position = ""  # from the beginning: what was printed before is known by its offsets
        elif not error.retryable:
            raise error
        self._failure, self._asked = error, retry_after_s(response) or 0.0

    def _unseen(self, pieces: Iterable[LogPiece]) -> Iterable[OutputPiece]:
        for piece in pieces:
            known = self._printed.get(piece.stream, 0)
            text = piece.text[max(0, known - piece.offset) :]
            if text:
                end = piece.offset + len(piece.text)
                self._printed[piece.stream] = end
                yield OutputPiece(piece.stream, end - len(text), text)

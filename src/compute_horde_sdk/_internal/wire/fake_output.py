"""What the fake facilitator's jobs print, as its stream of logs shows it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import httpx

from compute_horde.protocol.control import LogPiece
from compute_horde.protocol.sdk_facilitator import JobLogs, JobLogsEnd


class FakeStream(httpx.AsyncByteStream):
    """A body that hears of it when its reader leaves, as a socket does."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        await self._chunks.aclose()


class FakeOutput:
    """One job's. A position is a number of pieces."""

    def __init__(self) -> None:
        self.pieces: list[LogPiece] = []
        self.followers: list[asyncio.Queue[bytes | None]] = []
        self._printed = {"stdout": 0, "stderr": 0}
        self._ended: str | None = None

    def print(self, stream: str, text: str) -> None:
        """More text of ``stdout`` or ``stderr``."""
        piece = LogPiece.model_validate({"stream": stream, "offset": self._printed[stream], "text": text})
        self._printed[stream] += len(text)
        self.pieces.append(piece)
        self._tell(self._frame(len(self.pieces) - 1))

    def end(self, reason: str = "ended") -> None:
        """Nothing more will come, to those who follow later either."""
        self._ended = reason
        self._tell(end_frame(reason))
        self._tell(None)

    def drop(self) -> None:
        """Break every open stream off."""
        self._tell(None)

    async def follow(self, position: int) -> AsyncGenerator[bytes, None]:
        """The event stream from ``position`` on."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for number in range(position, len(self.pieces)):
            queue.put_nowait(self._frame(number))
        if self._ended is not None:
            queue.put_nowait(end_frame(self._ended))
            queue.put_nowait(None)
        self.followers.append(queue)
        try:
            yield b": hello\n\n"
            while (chunk := await queue.get()) is not None:
                yield chunk
        finally:
            self.followers.remove(queue)

    def _tell(self, chunk: bytes | None) -> None:
        for follower in self.followers:
            follower.put_nowait(chunk)

    def _frame(self, number: int) -> bytes:
        data = JobLogs(position=number + 1, pieces=[self.pieces[number]])
        return f"id: {number + 1}\nevent: logs\ndata: {data.model_dump_json()}\n\n".encode()


def end_frame(reason: str) -> bytes:
    """The last event of a stream of logs."""
    return f"event: end\ndata: {JobLogsEnd.model_validate({'reason': reason}).model_dump_json()}\n\n".encode()

"""A validator's connection: frames go out in order, and nobody waits for a slow validator."""

import asyncio
import contextlib
from collections import deque

from compute_horde.protocol.base import Message
from compute_horde.protocol.control import V0JobLogsResponse
from compute_horde.protocol.extensions import Extension, announced
from compute_horde.transport.channel import Channel, ChannelClosed

MAX_LOGS_CHARS = 4 * 1024 * 1024
"""Answers about output that may wait for a slow validator; past that the oldest are dropped."""


class Connection:
    """Frames are queued by :meth:`post` and sent by :meth:`write`, the one task that sends on the channel.

    Answers about output come through :meth:`offer`: they go out when nothing else waits, and may be lost.
    """

    def __init__(self, channel: Channel, validator: str) -> None:
        self.channel, self.validator = channel, validator
        self.alive = True
        self._frames: deque[str] = deque()
        self._logs: deque[str] = deque()
        self._logs_chars = 0
        self._more, self._finished = asyncio.Event(), False

    @property
    def extensions(self) -> frozenset[Extension]:
        """What the validator announced."""
        return announced(self.channel.peer_headers)

    def post(self, frame: str) -> None:
        """Queue a frame; on a connection that ended it is dropped, the outbox has it."""
        if self.alive:
            self._frames.append(frame)
            self._more.set()

    def say(self, message: Message) -> None:
        self.post(message.to_frame())

    def offer(self, response: V0JobLogsResponse) -> None:
        """Queue an answer about output, in bounded memory."""
        if not self.alive:
            return
        self._logs.append(frame := response.to_frame())
        self._logs_chars += len(frame)
        while self._logs_chars > MAX_LOGS_CHARS:
            self._logs_chars -= len(self._logs.popleft())
        self._more.set()

    async def write(self) -> None:
        """Send what is queued until :meth:`finish` or the end of the channel."""
        with contextlib.suppress(ChannelClosed):
            while (frame := await self._next()) is not None:
                await self.channel.send(frame)
        self.alive = False
        await self.channel.close()

    async def _next(self) -> str | None:
        while True:
            if self._frames:
                return self._frames.popleft()
            if self._finished:
                return None
            if self._logs:
                frame = self._logs.popleft()
                self._logs_chars -= len(frame)
                return frame
            self._more.clear()
            await self._more.wait()

    def finish(self) -> None:
        """Let :meth:`write` send what is queued, then close the channel."""
        self._finished = True
        self._more.set()

"""A validator's connection: frames go out in order, and nobody waits for a slow validator."""

import asyncio
import contextlib
from collections import deque

from compute_horde.protocol.base import Message
from compute_horde.protocol.control import V0JobLogsResponse
from compute_horde.protocol.extensions import Extension, announced
from compute_horde.protocol.validator_miner import V0FreeExecutorsRequest
from compute_horde.transport.channel import Channel, ChannelClosed

MAX_REPLAY_CHARS = 4 * 1024 * 1024
"""Frames that may wait for a validator before what it missed is read from the database for it."""

MAX_LOGS_CHARS = 4 * 1024 * 1024
"""Answers about output that may wait for a slow validator; past that the oldest are dropped."""


class Connection:
    """Frames are queued by :meth:`post` and sent by :meth:`write`, the one task that sends on the channel.

    How many executors are free comes through :meth:`tell_free`: the newest goes out when no frame waits. Answers
    about output come through :meth:`offer`: they go out when nothing else waits, and may be lost.
    """

    def __init__(self, channel: Channel, validator: str) -> None:
        """``admitted``: the validator has authenticated."""
        self.channel, self.validator = channel, validator
        self.alive, self.admitted = True, False
        self._frames: deque[str] = deque()
        self._chars = 0
        self._free: str | None = None
        self._logs: deque[str] = deque()
        self._logs_chars = 0
        self._more, self._taken = asyncio.Event(), asyncio.Event()
        self._last_code: int | None = None

    @property
    def extensions(self) -> frozenset[Extension]:
        """What the validator announced."""
        return announced(self.channel.peer_headers)

    def post(self, frame: str) -> None:
        """Queue a frame; on a connection that ended it is dropped, the outbox has it."""
        if self.alive:
            self._frames.append(frame)
            self._chars += len(frame)
            self._more.set()

    async def room(self) -> None:
        """Wait until few frames wait, or the connection has ended."""
        while self.alive and self._chars > MAX_REPLAY_CHARS:
            self._taken.clear()
            await self._taken.wait()

    def tell_free(self, message: V0FreeExecutorsRequest) -> None:
        """Queue how many executors are free, in place of what was to be said about it before."""
        if self.alive:
            self._free = message.to_frame()
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
        self.end()
        await self.channel.close(self._last_code or 1000)

    def end(self) -> None:
        """Nothing can be sent any more."""
        self.alive = False
        self._taken.set()

    async def _next(self) -> str | None:
        while True:
            if self._frames:
                frame = self._frames.popleft()
                self._chars -= len(frame)
                self._taken.set()
                return frame
            if self._last_code is not None:
                return None
            if self._free is not None:
                frame, self._free = self._free, None
                return frame
            if self._logs:
                frame = self._logs.popleft()
                self._logs_chars -= len(frame)
                return frame
            self._more.clear()
            await self._more.wait()

    def finish(self, code: int = 1000) -> None:
        """Let :meth:`write` send what is queued, then close the channel with this code."""
        if self._last_code is None:
            self._last_code = code
        self._more.set()

"""A validator's connection: frames go out in order, and nobody waits for a slow validator."""

import asyncio
import contextlib

from compute_horde.protocol.base import Message
from compute_horde.transport.channel import Channel, ChannelClosed

END = None


class Connection:
    """Frames are queued by :meth:`post` and sent by :meth:`write`, the one task that sends on the channel."""

    def __init__(self, channel: Channel, validator: str) -> None:
        self.channel, self.validator = channel, validator
        self.alive = True
        self._frames: asyncio.Queue[str | None] = asyncio.Queue()

    def post(self, frame: str) -> None:
        """Queue a frame; on a connection that ended it is dropped, the outbox has it."""
        if self.alive:
            self._frames.put_nowait(frame)

    def say(self, message: Message) -> None:
        self.post(message.to_frame())

    async def write(self) -> None:
        """Send what is queued until :meth:`finish` or the end of the channel."""
        with contextlib.suppress(ChannelClosed):
            while (frame := await self._frames.get()) is not None:
                await self.channel.send(frame)
        self.alive = False
        await self.channel.close()

    def finish(self) -> None:
        """Let :meth:`write` send what is queued, then close the channel."""
        self._frames.put_nowait(END)

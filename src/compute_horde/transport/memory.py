"""The fake channel: two ends in one process, for tests and for scenarios without sockets."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from compute_horde.transport.channel import Channel, ChannelClosed, DialFailed

Accept = Callable[[str, Mapping[str, str], Channel], Awaitable[None]]


@dataclass
class _Pipe:
    frames: asyncio.Queue[str | ChannelClosed] = field(default_factory=asyncio.Queue)
    closed: ChannelClosed | None = None


class MemoryChannel:
    """One end of a pair; see :func:`memory_pair`. A test may set ``quiet_s``."""

    def __init__(
        self,
        inbox: _Pipe,
        outbox: _Pipe,
        peer: str,
        max_frame_bytes: int | None = None,
        peer_headers: Mapping[str, str] | None = None,
    ) -> None:
        self._inbox, self._outbox, self._peer, self._max = inbox, outbox, peer, max_frame_bytes
        self._peer_headers = dict(peer_headers or {})
        self.quiet_s = 0.0

    @property
    def peer(self) -> str:
        return self._peer

    @property
    def peer_headers(self) -> Mapping[str, str]:
        return self._peer_headers

    async def send(self, frame: str) -> None:
        await asyncio.sleep(0)
        if closed := self._inbox.closed or self._outbox.closed:
            raise ChannelClosed(closed.code, closed.reason)
        self._outbox.frames.put_nowait(frame)

    async def receive(self) -> str:
        if self._inbox.closed and self._inbox.frames.empty():
            raise ChannelClosed(self._inbox.closed.code, self._inbox.closed.reason)
        item = await self._inbox.frames.get()
        if isinstance(item, ChannelClosed):
            raise ChannelClosed(item.code, item.reason)
        if self._max is not None and len(item.encode()) > self._max:
            await self.close(1009, "message too big")
            raise ChannelClosed(1009, "message too big")
        return item

    async def close(self, code: int = 1000, reason: str = "") -> None:
        for pipe in (self._inbox, self._outbox):
            if pipe.closed is None:
                pipe.closed = ChannelClosed(code, reason)
                pipe.frames.put_nowait(pipe.closed)


def memory_pair(
    max_frame_bytes: int | None = None,
    *,
    request: Mapping[str, str] | None = None,
    answer: Mapping[str, str] | None = None,
) -> tuple[MemoryChannel, MemoryChannel]:
    """Two connected ends: the one that dialled with the headers ``request``, and the one that gave ``answer``.

    What one sends the other receives; closing either closes both.
    """
    left, right = _Pipe(), _Pipe()
    return (
        MemoryChannel(left, right, "memory:right", max_frame_bytes, answer),
        MemoryChannel(right, left, "memory:left", max_frame_bytes, request),
    )


class MemoryDialer:
    """A :class:`~compute_horde.transport.channel.Dialer` whose servers are functions, by URL prefix."""

    def __init__(self) -> None:
        self._servers: dict[str, tuple[Accept, Mapping[str, str]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, prefix: str, accept: Accept, headers: Mapping[str, str] | None = None) -> None:
        """Let every URL that begins with ``prefix`` be answered by ``accept(url, headers, channel)``.

        ``headers``: of the answer to the handshake.
        """
        self._servers[prefix] = (accept, dict(headers or {}))

    def unplug(self, prefix: str) -> None:
        del self._servers[prefix]

    async def dial(
        self, url: str, *, headers: Mapping[str, str] | None = None, max_frame_bytes: int, timeout_s: float = 10
    ) -> MemoryChannel:
        served = next((server for prefix, server in self._servers.items() if url.startswith(prefix)), None)
        if served is None:
            raise DialFailed(f"cannot connect to {url}: nobody serves it")
        accept, answer = served
        near, far = memory_pair(max_frame_bytes, request=headers, answer=answer)
        task = asyncio.ensure_future(accept(url, dict(headers or {}), far))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return near

"""Connections that can be slow, half-open and cut. As on TCP, what arrives is in order, if it does."""

import asyncio
import itertools
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from tests.unit.model.processes import Process

from compute_horde.transport.channel import Channel, ChannelClosed, DialFailed

LATENCY_SECONDS = 0.005
KEEPALIVE_SECONDS = 40.0
"""A peer that vanished without a word is noticed so late, by pings that are not answered."""

REPEATABLE = re.compile(
    r'"message_type":"(V0InitialJobRequest|V0JobRequest|V2JobRequest|V0CancelJobRequest|V0AcceptJobRequest'
    r"|V0ExecutorReadyRequest|V0VolumesReadyRequest|V0ExecutionDoneRequest|V0JobFinishedRequest|V0JobFailedRequest"
    r'|V0HordeFailedRequest|V0JobAcceptedReceiptRequest|V0JobFinishedReceiptRequest)"'
)
"""What its sender may say again, and its receiver must not mind: not status updates, which are counted."""

Accept = Callable[[str, Mapping[str, str], Channel], Awaitable[None]]


class _Pipe:
    """One direction."""

    def __init__(self, loop: asyncio.AbstractEventLoop, process: Process) -> None:
        self._loop, self._process = loop, process
        self.on_the_way: deque[str | ChannelClosed] = deque()
        self.arrived: asyncio.Queue[str | ChannelClosed] = asyncio.Queue()
        self.stalled = self.lost = self.repeat_next = False

    def put(self, item: str | ChannelClosed) -> None:
        if self.lost:
            return
        again = self.repeat_next and isinstance(item, str) and REPEATABLE.search(item) is not None
        self.repeat_next = self.repeat_next and not again
        for _ in range(2 if again else 1):
            self.on_the_way.append(item)
            self._loop.call_later(LATENCY_SECONDS, self.flow)

    def flow(self) -> None:
        """What has been on its way long enough arrives."""
        if self.on_the_way and not self.stalled:
            self.arrived.put_nowait(self.on_the_way.popleft())

    def stall(self, stalled: bool) -> None:
        self.stalled = stalled
        while self.on_the_way and not stalled:
            self.flow()

    def lose(self) -> None:
        """What is on its way never arrives, nor does what follows."""
        self.lost = True
        self.on_the_way.clear()


class End:
    """A :class:`~compute_horde.transport.channel.Channel` of one process."""

    def __init__(
        self, process: Process, peer: str, headers: Mapping[str, str], inbox: _Pipe, outbox: _Pipe
    ) -> None:
        self.process, self._peer, self._headers = process, peer, dict(headers)
        self.inbox, self.outbox = inbox, outbox
        self.closed: ChannelClosed | None = None
        self.quiet_s = 0.0

    @property
    def peer(self) -> str:
        return self._peer

    @property
    def peer_headers(self) -> Mapping[str, str]:
        return self._headers

    async def send(self, frame: str) -> None:
        await asyncio.sleep(0)
        await self.process.edge()
        if self.closed:
            raise ChannelClosed(self.closed.code, self.closed.reason)
        self.outbox.put(frame)

    async def receive(self) -> str:
        if self.closed and self.inbox.arrived.empty():
            raise ChannelClosed(self.closed.code, self.closed.reason)
        item = await self.inbox.arrived.get()
        if isinstance(item, ChannelClosed):
            self.closed = self.closed or item
            raise ChannelClosed(item.code, item.reason)
        return item

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.closed is None and self.process.alive:
            self.notice(ChannelClosed(code, reason))
            self.outbox.put(ChannelClosed(code, reason))

    def notice(self, closed: ChannelClosed) -> None:
        """The connection is over, as this end sees it."""
        if self.closed is None:
            self.closed = closed
            self.inbox.arrived.put_nowait(closed)


class Wire(NamedTuple):
    """One connection: who dialled, and who was dialled."""

    kind: str
    near: End
    far: End

    @property
    def ends(self) -> tuple[End, End]:
        return self.near, self.far

    @property
    def is_open(self) -> bool:
        return not (self.near.closed and self.far.closed)

    def cut(self, *, near_knows: bool = True, far_knows: bool = True) -> None:
        """Nothing arrives any more. An end that knows nothing of it finds out by its pings."""
        loop = asyncio.get_running_loop()
        for end, knows in zip(self.ends, (near_knows, far_knows), strict=True):
            end.inbox.lose()
            if knows:
                end.notice(ChannelClosed(1006, "cut"))
            else:
                loop.call_later(KEEPALIVE_SECONDS, end.notice, ChannelClosed(1006, "no answer to pings"))


class Server(NamedTuple):
    process: Process
    accept: Accept
    headers: Mapping[str, str]


class Network:
    """All hosts and wires. ``away``: hosts that cannot be dialled for the moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._servers: dict[str, Server] = {}
        self._numbers = itertools.count()
        self._wires: list[Wire] = []
        self.away: set[str] = set()

    def listen(self, prefix: str, server: Server) -> None:
        """URLs that begin with ``prefix`` are answered by this process, while it lives."""
        self._servers[prefix] = server

    def dialer(self, process: Process, kind: str) -> "_Dialer":
        return _Dialer(self, process, kind)

    @property
    def wires(self) -> list[Wire]:
        """Those that are open, oldest first."""
        self._wires = [wire for wire in self._wires if wire.is_open]
        return self._wires

    def hang_up(self, process: Process) -> None:
        """The kernel closes the sockets of a dead process: its peers notice, what it sent arrives."""
        for wire in self.wires:
            for end, other in (wire.ends, wire.ends[::-1]):
                if end.process is process:
                    end.closed = end.closed or ChannelClosed(1006, "killed")
                    end.outbox.put(ChannelClosed(1006, "the peer was killed"))
                    other.outbox.lose()

    def unplug(self, prefix: str, away: bool) -> None:
        """Whether new connections to it can be made; those that are there stay."""
        (self.away.add if away else self.away.discard)(prefix)

    def heal(self) -> None:
        """Everything flows, and every host can be reached."""
        self.away.clear()
        for wire in self.wires:
            for end in wire.ends:
                end.inbox.repeat_next = False
                end.inbox.stall(False)

    async def connect(self, process: Process, kind: str, url: str, headers: Mapping[str, str]) -> End:
        await asyncio.sleep(LATENCY_SECONDS)
        await process.edge()
        found = next(((p, s) for p, s in self._servers.items() if url.startswith(p)), None)
        if found is None or not found[1].process.alive or found[0] in self.away:
            raise DialFailed(f"cannot connect to {url}")
        server = found[1]
        there, back = _Pipe(self._loop, process), _Pipe(self._loop, server.process)
        name = f"{kind}-{next(self._numbers)}"
        near = End(process, f"{name}-far", server.headers, back, there)
        far = End(server.process, f"{name}-near", headers, there, back)
        self._wires.append(Wire(kind, near, far))
        server.process.go(_served(server, url, headers, far))
        return near


async def _served(server: Server, url: str, headers: Mapping[str, str], channel: End) -> None:
    try:
        await server.accept(url, headers, channel)
    except ChannelClosed:
        pass
    finally:
        await channel.close(1000)


class _Dialer:
    def __init__(self, network: Network, process: Process, kind: str) -> None:
        self._network, self._process, self._kind = network, process, kind

    async def dial(
        self, url: str, *, headers: Mapping[str, str] | None = None, max_frame_bytes: int, timeout_s: float = 10
    ) -> End:
        return await self._network.connect(self._process, self._kind, url, headers or {})

"""One contract, kept by the channel in memory and by the real one over sockets, on both of its sides."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from litestar import Litestar, WebSocket
from litestar.handlers import websocket

from compute_horde.transport.channel import Channel, ChannelClosed, Dialer, DialFailed
from compute_horde.transport.memory import MemoryDialer
from compute_horde.transport.served import ServedChannel, Server, serving
from compute_horde.transport.websocket import WebSocketDialer

LIMIT = 1000


@dataclass
class Line:
    """A dialer, the address to dial, and what has been accepted there."""

    dialer: Dialer
    url: str
    accepted: "asyncio.Queue[tuple[Mapping[str, str], Channel]]"

    async def pair(self) -> tuple[Channel, Channel]:
        near = await self.dialer.dial(self.url, headers={"X-Test": "1"}, max_frame_bytes=LIMIT)
        headers, far = await asyncio.wait_for(self.accepted.get(), 5)
        assert {name.lower(): value for name, value in headers.items()}["x-test"] == "1"
        assert {name.lower(): value for name, value in far.peer_headers.items()}["x-test"] == "1"
        assert {name.lower(): value for name, value in near.peer_headers.items()}["x-answer"] == "2"
        return near, far


@contextlib.asynccontextmanager
async def in_memory() -> AsyncIterator[Line]:
    line = Line(MemoryDialer(), "ws://h/", asyncio.Queue())

    async def accept(_url: str, headers: Mapping[str, str], channel: Channel) -> None:
        line.accepted.put_nowait((headers, channel))

    assert isinstance(line.dialer, MemoryDialer)
    line.dialer.serve("ws://h/", accept, {"X-Answer": "2"})
    yield line


@contextlib.asynccontextmanager
async def over_sockets() -> AsyncIterator[Line]:
    accepted: asyncio.Queue[tuple[Mapping[str, str], Channel]] = asyncio.Queue()
    over = asyncio.Event()

    @websocket("/line")
    async def handler(socket: "WebSocket[Any, Any, Any]") -> None:
        await socket.accept(headers={"X-Answer": "2"})
        accepted.put_nowait((dict(socket.headers), ServedChannel(socket)))
        await over.wait()

    async with serving(Litestar([handler], openapi_config=None)) as server:
        try:
            yield Line(WebSocketDialer(), f"ws://127.0.0.1:{server.port}/line", accepted)
        finally:
            over.set()


@pytest.fixture(params=[in_memory, over_sockets], ids=["memory", "sockets"])
async def line(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    async with request.param() as made:
        yield made


async def test_frames_arrive_whole_and_in_order_both_ways(line: Line) -> None:
    near, far = await line.pair()
    frames = ["", "é", *(str(n) for n in range(50))]
    for sender, receiver in ((near, far), (far, near)):
        for frame in frames:
            await sender.send(frame)
        assert [await receiver.receive() for _ in frames] == frames
    assert ":" in near.peer
    assert ":" in far.peer


@pytest.mark.parametrize("side", [0, 1])
async def test_a_close_is_seen_by_the_other_side_after_what_was_sent(line: Line, side: int) -> None:
    pair = await line.pair()
    closer, other = pair[side], pair[1 - side]
    await closer.send("last")
    await closer.close(3000, "enough")
    assert await other.receive() == "last"
    for _ in range(2):
        with pytest.raises(ChannelClosed) as caught:
            await other.receive()
        assert caught.value.code == 3000
    with pytest.raises(ChannelClosed):
        await other.send("too late")
    with pytest.raises(ChannelClosed):
        await closer.send("too late")
    with pytest.raises(ChannelClosed):
        await closer.receive()
    await closer.close()
    await other.close()


async def test_a_cancelled_receive_loses_nothing(line: Line) -> None:
    near, far = await line.pair()
    for receiver, sender in ((near, far), (far, near)):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receiver.receive(), 0.02)
        await sender.send("kept")
        assert await asyncio.wait_for(receiver.receive(), 5) == "kept"


async def test_a_frame_over_the_limit_closes_the_channel(line: Line) -> None:
    near, far = await line.pair()
    await far.send("x" * LIMIT)
    assert len(await near.receive()) == LIMIT
    await far.send("é" * (LIMIT // 2 + 1))
    with pytest.raises(ChannelClosed) as caught:
        await near.receive()
    assert caught.value.code == 1009
    with pytest.raises(ChannelClosed):
        await far.receive()


async def test_what_cannot_be_dialled_says_so() -> None:
    async with over_sockets() as line:
        for url in (
            line.url.removesuffix("line") + "nowhere?secret=1",
            "ws://127.0.0.1:1/",
            "http://h/",
            "nonsense",
        ):
            with pytest.raises(DialFailed) as caught:
                await line.dialer.dial(url, max_frame_bytes=LIMIT)
            assert "secret" not in str(caught.value)


async def test_a_connection_that_is_reset_at_once_says_so() -> None:
    def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    for _ in range(20):  # before, while or after the request is sent
        with pytest.raises(DialFailed):
            await WebSocketDialer().dial(url, max_frame_bytes=LIMIT)
    server.close()


async def test_a_port_that_is_taken_says_so() -> None:
    async with serving(Litestar([], openapi_config=None)) as server:
        with pytest.raises(OSError, match="choose another port"):
            Server(Litestar([], openapi_config=None), "127.0.0.1", server.port)


async def test_an_application_that_cannot_start_says_so() -> None:
    async def broken() -> None:
        raise RuntimeError("no")

    server = Server(Litestar([], on_startup=[broken], openapi_config=None), "127.0.0.1", 0)
    with pytest.raises(RuntimeError, match="did not start"):
        await server.start()
    await server.stop()

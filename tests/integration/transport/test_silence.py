"""A peer that is gone without a word is noticed on both sides; one that is only slow is waited for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar, WebSocket
from litestar.handlers import websocket

from compute_horde.transport import served, silence
from compute_horde.transport import websocket as dialled
from compute_horde.transport.channel import Channel, ChannelClosed
from compute_horde.transport.served import ServedChannel, serving
from compute_horde.transport.silence import SilenceWatch
from compute_horde.transport.websocket import WebSocketDialer


class Cable:
    """A TCP relay that can stop passing anything on while both connections stay open, and pass it on slowly."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.plugged, self.bytes_a_second = asyncio.Event(), 0.0
        self.plugged.set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, out = await asyncio.open_connection("127.0.0.1", self._port)
        pumps = {asyncio.ensure_future(self._pump(*ends)) for ends in ((reader, out), (upstream, writer))}
        self.tasks |= pumps
        await asyncio.wait(pumps)
        writer.close()
        out.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(16 * 1024):
                await self.plugged.wait()
                if self.bytes_a_second:
                    await asyncio.sleep(len(data) / self.bytes_a_second)
                target.write(data)
                await target.drain()
            target.close()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules with a second in place of twenty."""
    watch = lambda transport: SilenceWatch(transport, 1.0)  # noqa: E731 - a shorter watch of the same kind
    for module in (served, dialled):
        monkeypatch.setattr(module, "SilenceWatch", watch)
        monkeypatch.setattr(module, "PING_SECONDS", 0.25)


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, Channel, Cable]]:
    accepted: asyncio.Queue[Channel] = asyncio.Queue()
    over = asyncio.Event()

    @websocket("/line")
    async def handler(socket: "WebSocket[Any, Any, Any]") -> None:
        await socket.accept()
        accepted.put_nowait(ServedChannel(socket))
        await over.wait()

    async with serving(Litestar([handler])) as server:
        cable = Cable(server.port)
        relay = await asyncio.start_server(cable.relay, "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{relay.sockets[0].getsockname()[1]}/line"
        near = await WebSocketDialer().dial(url, max_frame_bytes=50 * 1024 * 1024)
        try:
            yield near, await accepted.get(), cable
        finally:
            over.set()
            cable.plugged.set()
            await near.close()
            relay.close()
            for task in cable.tasks:
                task.cancel()
            await asyncio.gather(*cable.tasks, return_exceptions=True)


@pytest.mark.usefixtures("short")
async def test_both_sides_notice_a_pulled_cable() -> None:
    async with pair() as (near, far, cable):
        await near.send("before")
        assert await far.receive() == "before"
        cable.plugged.clear()
        for side in (near, far):
            with pytest.raises(ChannelClosed):
                await asyncio.wait_for(side.receive(), 5)


@pytest.mark.usefixtures("short")
async def test_a_quiet_connection_lives_on() -> None:
    async with pair() as (near, far, _):
        await asyncio.sleep(2.5)
        await far.send("still here")
        assert await asyncio.wait_for(near.receive(), 5) == "still here"


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("upwards", [True, False])
async def test_a_large_frame_on_a_slow_line_arrives(upwards: bool) -> None:
    async with pair() as (near, far, cable):
        cable.bytes_a_second = 200_000
        source, target = (near, far) if upwards else (far, near)
        frame = "x" * 500_000  # takes longer than the silence that is allowed
        async with asyncio.timeout(20):
            _, received = await asyncio.gather(source.send(frame), target.receive())
        assert received == frame


async def test_a_peer_whose_reader_is_slow_is_not_silent() -> None:
    class Paused(asyncio.Transport):
        aborted, reading = 0, False

        def is_reading(self) -> bool:
            return self.reading

        def abort(self) -> None:
            self.aborted += 1

    transport = Paused()
    watch = SilenceWatch(transport, 0.04)
    await asyncio.sleep(0.15)
    assert transport.aborted == 0
    transport.reading = True
    await asyncio.sleep(0.15)
    assert transport.aborted >= 1
    watch.stop()
    watch.stop()


def test_pings_come_often_enough() -> None:
    assert silence.PING_SECONDS * 3 < silence.SILENCE_SECONDS

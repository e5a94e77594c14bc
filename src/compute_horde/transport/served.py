"""The side that is dialled: a Litestar application on a uvicorn server inside this process's loop."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import uvicorn
from litestar import Litestar, WebSocket
from litestar.exceptions import WebSocketDisconnect, WebSocketException
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES
from compute_horde.transport.channel import ChannelClosed
from compute_horde.transport.silence import PING_SECONDS, SilenceWatch

_GONE = (WebSocketDisconnect, WebSocketException, RuntimeError, OSError)
"""What Litestar and uvicorn raise on a connection that has ended; uvicorn's ClientDisconnected is an OSError."""


class ServedChannel:
    """A :class:`~compute_horde.transport.channel.Channel` over an accepted Litestar WebSocket."""

    def __init__(self, websocket: "WebSocket[Any, Any, Any]") -> None:
        self._websocket = websocket
        self._closed: ChannelClosed | None = None

    @property
    def peer(self) -> str:
        client = self._websocket.client
        return f"{client.host}:{client.port}" if client else "unknown"

    @property
    def peer_headers(self) -> Mapping[str, str]:
        return self._websocket.headers

    async def send(self, frame: str) -> None:
        if self._closed:
            raise self._closed
        try:
            await self._websocket.send_text(frame)
        except _GONE as error:
            raise self._note(error) from None

    async def receive(self) -> str:
        if self._closed:
            raise self._closed
        try:
            data = await self._websocket.receive_data(mode="text")
        except _GONE as error:
            raise self._note(error) from None
        return str(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._closed is None:
            self._closed = ChannelClosed(code, reason)
            with contextlib.suppress(*_GONE):
                await self._websocket.close(code=code, reason=reason)

    def _note(self, error: Exception) -> ChannelClosed:
        code = error.code if isinstance(error, (WebSocketDisconnect, WebSocketException)) else 1006
        self._closed = self._closed or ChannelClosed(code)
        return ChannelClosed(code)


class _WatchedProtocol(WebSocketsSansIOProtocol):
    """A connection that is given up when nothing comes from its peer any more."""

    _watch: SilenceWatch | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._watch = SilenceWatch(self.transport)

    def data_received(self, data: bytes) -> None:
        if self._watch is not None:
            self._watch.heard()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.stop()
        super().connection_lost(exc)


class Server:
    """One application on one address, started and stopped without touching signal handlers."""

    def __init__(self, app: Litestar, host: str, port: int) -> None:
        """``port`` 0 picks a free one; :attr:`port` then says which."""
        self._socket = _bind(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            ws=_WatchedProtocol,
            ws_max_size=MAX_MINER_FRAME_BYTES,
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=None,  # silence is what counts
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=3,
            server_header=False,
        )
        # uvicorn names every accepted path at INFO, and an executor's path holds its token
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        self._server = _QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the address accepts connections. :raises RuntimeError: the application did not start."""
        self._task = asyncio.create_task(self._serve())
        while not self._server.started:
            if self._task.done():
                failed, self._task = self._task, None
                self._socket.close()
                failed.result()
                raise RuntimeError(f"the server on {self.host}:{self.port} did not start")
            await asyncio.sleep(0.005)

    async def _serve(self) -> None:
        # uvicorn leaves by SystemExit when the application does not start, which would end the whole process.
        with contextlib.suppress(SystemExit):
            await self._server.serve(sockets=[self._socket])

    async def stop(self) -> None:
        """Close the address and every connection; stopping twice is fine."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
            self._task = None
        self._socket.close()


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def] # uvicorn's own signature is untyped here
        """Signals belong to the command that runs the services."""
        yield


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only then
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno, f"cannot listen on {host}:{port}: {error.strerror}; choose another port"
        ) from None
    return sock


@contextlib.asynccontextmanager
async def serving(app: Litestar, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Server]:
    """A running :class:`Server` for the length of a block."""
    server = Server(app, host, port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()

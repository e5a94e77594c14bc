"""The real channel, over the ``websockets`` library, for the side that dials."""

import asyncio
from collections.abc import Mapping
from typing import cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from compute_horde.transport.channel import ChannelClosed, DialFailed, DialledChannel
from compute_horde.transport.silence import PING_SECONDS, SilenceWatch


class _WatchedConnection(ClientConnection):
    """A connection that is given up when nothing comes from its peer any more."""

    _watch: SilenceWatch | None = None

    @property
    def quiet_s(self) -> float:
        return self._watch.quiet_s if self._watch is not None else 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._watch = SilenceWatch(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        if self._watch is not None:
            self._watch.heard()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.stop()
        super().connection_lost(exc)


class WebSocketChannel:
    """A :class:`DialledChannel` over one client connection."""

    def __init__(self, connection: _WatchedConnection) -> None:
        self._connection = connection

    @property
    def quiet_s(self) -> float:
        return self._connection.quiet_s

    @property
    def peer(self) -> str:
        address = self._connection.remote_address
        return f"{address[0]}:{address[1]}" if address else "unknown"

    @property
    def peer_headers(self) -> Mapping[str, str]:
        response = self._connection.response
        return dict(response.headers.raw_items()) if response else {}

    async def send(self, frame: str) -> None:
        try:
            await self._connection.send(frame)
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def receive(self) -> str:
        try:
            frame = await self._connection.recv()
        except ConnectionClosed as closed:
            raise _closed(closed) from None
        return frame if isinstance(frame, str) else frame.decode("utf-8", "replace")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._connection.close(code, reason)


def _closed(error: ConnectionClosed) -> ChannelClosed:
    frame = error.rcvd or error.sent
    return ChannelClosed(frame.code, frame.reason) if frame else ChannelClosed()


class WebSocketDialer:
    """Opens :class:`WebSocketChannel`. Never goes through a proxy of the environment."""

    async def dial(
        self, url: str, *, headers: Mapping[str, str] | None = None, max_frame_bytes: int, timeout_s: float = 10
    ) -> DialledChannel:
        try:
            connection = await connect(
                url,
                additional_headers=dict(headers or {}),
                max_size=max_frame_bytes,
                open_timeout=timeout_s,
                ping_interval=PING_SECONDS,
                ping_timeout=None,  # silence is what counts
                create_connection=_WatchedConnection,
                close_timeout=2,
                compression=None,
                proxy=None,
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, EOFError, ConnectionClosed) as error:
            place, why = url.partition("?")[0], str(error) or type(error).__name__
            raise DialFailed(f"cannot connect to {place}: {why}") from error
        return WebSocketChannel(cast("_WatchedConnection", connection))

"""``/ws/v0/``: where validators connect (section 5.1)."""

from typing import Any

from litestar import WebSocket, websocket

from compute_horde.facilitator.http import Desk
from compute_horde.protocol.extensions import announcement
from compute_horde.transport.served import ServedChannel


@websocket("/ws/v0/")
async def validators(socket: WebSocket[Any, Any, Any], desk: Desk) -> None:
    await socket.accept(headers=announcement())
    await desk.serve_validator(ServedChannel(socket), socket.headers)

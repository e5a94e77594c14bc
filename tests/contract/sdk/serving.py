"""The stand-in behind a real socket of this machine."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from tests.contract.sdk.legacy import LegacyFacilitator


@asynccontextmanager
async def served(legacy: LegacyFacilitator, port: int = 0) -> AsyncIterator[str]:
    """Its URL, without a slash at the end. An answer that is to be lost ends in a cut connection."""
    config = uvicorn.Config(_application(legacy), log_level="critical", lifespan="off", date_header=False)
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


def _application(legacy: LegacyFacilitator) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        url = f"http://{dict(scope['headers'])[b'host'].decode()}{scope['path']}"
        request = httpx.Request(
            scope["method"],
            f"{url}?{scope['query_string'].decode()}",
            headers=scope["headers"],
            content=body,
        )
        try:
            response = await legacy.handle(request)
        except httpx.HTTPError:
            return  # uvicorn then closes the connection with a 500 of its own, or without a word
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.content})

    return application

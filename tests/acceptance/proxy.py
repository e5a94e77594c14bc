"""A facilitator seen through a plain HTTP proxy that keeps what passes and can swallow answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

Swallowed = Callable[["Passed"], bool]


@dataclass(frozen=True)
class Passed:
    """One request as it came. ``raw``: with its head; ``line``: its first, such as ``GET /api/v1/jobs/``."""

    raw: bytes

    @property
    def line(self) -> str:
        return self.raw.split(b"\r\n", 1)[0].decode().rsplit(" ", 1)[0]


class Proxy:
    """``url``: to give to a client. ``passed``: its requests, in order. ``connections``: those that are open."""

    def __init__(self, target: str, swallows: Swallowed) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._swallows = swallows
        self.url = ""
        self.passed: list[Passed] = []
        self.connections: set[asyncio.Task[None]] = set()

    def lines(self, beginning: str) -> list[str]:
        return [request.line for request in self.passed if request.line.startswith(beginning)]

    async def replay(self, request: Passed) -> bytes:
        """The facilitator's answer to the very same bytes."""
        reader, writer = await asyncio.open_connection(*self._target)
        writer.write(request.raw.replace(b"Connection: keep-alive", b"Connection: close"))
        answer = await reader.read()
        writer.close()
        return answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, out = await asyncio.open_connection(*self._target)
        answers: asyncio.Task[None] | None = None
        try:
            while True:
                request = await _one_request(reader)
                self.passed.append(request)
                out.write(request.raw)
                if self._swallows(request):
                    await _ended(answers)
                    await upstream.read(1)  # carried out, and answered
                    return
                answers = answers or asyncio.create_task(_pump(upstream, writer))
        finally:
            out.close()
            await _ended(answers)


async def _one_request(reader: asyncio.StreamReader) -> Passed:
    head = await reader.readuntil(b"\r\n\r\n")
    sizes = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return Passed(head + await reader.readexactly(int(sizes[0]) if sizes else 0))


async def _ended(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


@contextlib.asynccontextmanager
async def proxy_of(target: str, swallows: Swallowed = lambda _: False) -> AsyncIterator[Proxy]:
    """A proxy before the facilitator at ``target``. ``swallows``: whether this request's answer gets lost."""
    proxy = Proxy(target, swallows)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy.serve(reader, writer))
        proxy.connections.add(task)
        task.add_done_callback(proxy.connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in list(proxy.connections):
            task.cancel()
        await asyncio.gather(*proxy.connections, return_exceptions=True)

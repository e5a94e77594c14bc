"""What a container has printed so far, read again from the engine's own log."""

import struct
from collections.abc import AsyncIterator

import aiohttp
from aiodocker.containers import DockerContainer

from compute_horde.executor.runtime import Sink

_HEADER = struct.Struct(">BxxxL")
_ENTRY_BYTES = 100
"""What one entry of a log file takes beside its text, estimated generously."""


class Demultiplexer:
    """Takes the engine's frames apart; what follows in one stream is handed on in one piece."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._buffer = sink, bytearray()
        self.log_bytes = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data
        run, joined, at = 0, bytearray(), 0
        while at + _HEADER.size <= len(self._buffer):
            stream, size = _HEADER.unpack_from(self._buffer, at)
            end = at + _HEADER.size + size
            if end > len(self._buffer):
                break
            if stream != run and joined:
                self._sink(run, bytes(joined))
                joined.clear()
            run = stream
            joined += memoryview(self._buffer)[at + _HEADER.size : end]
            self.log_bytes += size + _ENTRY_BYTES
            at = end
        del self._buffer[:at]
        if joined:
            self._sink(run, bytes(joined))


async def chunks(container: DockerContainer) -> AsyncIterator[bytes]:
    """The log from its beginning until the container has ended.

    :raises DockerError, aiohttp.ClientError, OSError:
    """
    docker = container.docker
    async with docker._query(
        f"containers/{container.id}/logs",
        params={"stdout": "1", "stderr": "1", "follow": "1"},
        timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
    ) as response:
        async for data in response.content.iter_any():
            yield data

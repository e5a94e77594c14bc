"""What a container has printed so far, read again from the engine's own log."""

import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator, Mapping

import aiohttp
from aiodocker.containers import DockerContainer

from compute_horde.executor.runtime import Sink

_HEADER = struct.Struct(">BxxxL")
_ENTRY_BYTES = 100
"""What one entry of a log file takes beside its text, estimated generously."""


class Demultiplexer:
    """Takes the engine's frames apart; what follows in one stream is handed on in one piece.

    ``skip``: bytes of each stream that are known already. ``taken``: those that came, the skipped included.
    """

    def __init__(self, sink: Sink, skip: Mapping[int, int] | None = None) -> None:
        self._sink, self._buffer = sink, bytearray()
        self._skip = dict(skip or {})
        self.taken: Counter[int] = Counter()
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
                self._hand_on(run, joined)
                joined.clear()
            run = stream
            joined += memoryview(self._buffer)[at + _HEADER.size : end]
            self.log_bytes += size + _ENTRY_BYTES
            at = end
        del self._buffer[:at]
        if joined:
            self._hand_on(run, joined)

    def _hand_on(self, stream: int, data: bytearray) -> None:
        skipped = min(self._skip.get(stream, 0), len(data))
        self._skip[stream] = self._skip.get(stream, 0) - skipped
        self.taken[stream] += len(data)
        if skipped < len(data):
            self._sink(stream, bytes(data[skipped:]))


async def chunks(container: DockerContainer, *, follow: bool) -> AsyncIterator[bytes]:
    """The log from its beginning; ``follow``: until the container has ended, its last words perhaps left out.

    :raises DockerError, aiohttp.ClientError, OSError:
    """
    docker = container.docker
    async with docker._query(
        f"containers/{container.id}/logs",
        params={"stdout": "1", "stderr": "1", "follow": str(int(follow))},
        timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
    ) as response:
        with contextlib.closing(response):
            async for data in response.content.iter_any():
                yield data

"""In which order a job's two streams were read: the engine's log may mix them otherwise a second time."""

import os
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from compute_horde.executor.runtime import STDERR, STDOUT

_RECORD = struct.Struct(">BQ")
MAX_RECORDS = 200_000
MAX_WAITING_BYTES = 1024 * 1024
"""Of one stream, while the other is awaited. More, and the two are not alike: then the order is given up."""

Chunk = tuple[int, bytes]


class Order:
    """Says in which order to take what is read, and keeps it in a file for the next reader of the same streams.

    ``alone``: the stream that was read, and how many bytes, where there was only one: of that, nothing is written.
    """

    def __init__(self, path: Path, alone: tuple[int, int] = (0, 0)) -> None:
        self._path, self._known = path, deque(_records(path))
        self._room = MAX_RECORDS - len(self._known)
        self._file = _open(path) if self._known else -1
        self._alone: tuple[int, int] | None = None if self._known else alone
        if not self._known and alone[1]:
            self._known.append(alone)
        self._closed = False
        self._waiting = {STDOUT: bytearray(), STDERR: bytearray()}

    def arrange(self, stream: int, data: bytes) -> Iterator[Chunk]:
        """What may be taken now, in its order."""
        if not self._known:
            self._record(stream, data)
            yield stream, data
            return
        self._waiting[stream] += data
        while self._known and (chunk := self._next()):
            yield chunk
        if not self._known or len(self._waiting[stream]) > MAX_WAITING_BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[Chunk]:
        """All that still waits; nothing more is known of the order."""
        self._known.clear()
        for stream, waiting in self._waiting.items():
            if waiting:
                data = bytes(waiting)
                waiting.clear()
                self._record(stream, data)
                yield stream, data

    def close(self) -> None:
        """Twice is fine."""
        self._closed = True
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _next(self) -> Chunk | None:
        stream, size = self._known[0]
        waiting = self._waiting[stream]
        data = bytes(waiting[:size])
        if not data:
            return None
        del waiting[:size]
        if len(data) == size:
            self._known.popleft()
        else:
            self._known[0] = (stream, size - len(data))
        return stream, data

    def _record(self, stream: int, data: bytes) -> None:
        if self._alone is not None and self._alone[0] in (0, stream):
            self._alone = (stream, self._alone[1] + len(data))
        elif self._room > 0 and not self._closed:
            try:
                self._write(stream, len(data))
            except OSError:  # a full disk must not stop the job's output from being read
                self._room = 0

    def _write(self, stream: int, size: int) -> None:
        record = _RECORD.pack(stream, size)
        if self._alone is not None:
            self._file = _open(self._path)
            before, self._alone = _RECORD.pack(*self._alone), None
            record = before + record
        self._room -= 1
        os.write(self._file, record)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _records(path: Path) -> Iterator[tuple[int, int]]:
    try:
        data = path.read_bytes()
    except OSError:
        return
    for stream, size in _RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size]):
        if size and stream in (STDOUT, STDERR):
            yield stream, size

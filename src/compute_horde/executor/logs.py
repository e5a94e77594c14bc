"""What a job prints: whole in a bounded file, and head and tail of it in bounded memory."""

import contextlib
from pathlib import Path
from typing import BinaryIO

from compute_horde.executor.order import Order
from compute_horde.executor.printed import Printed
from compute_horde.executor.runtime import STDERR, STDOUT

RESULT_CHARS = 1_000_000
"""Longer streams are shown by their first and last halves of this (section 4.4)."""

_HALF = RESULT_CHARS // 2
_HEAD_BYTES = 4 * RESULT_CHARS  # UTF-8 has at most four bytes a character
_TAIL_BYTES = 4 * _HALF


class StreamLog:
    """One stream. ``cap``: largest size of the file, in bytes."""

    def __init__(self, path: Path, cap: int) -> None:
        self._file: BinaryIO = path.open("wb", buffering=0)
        self._room, self._cap = cap, cap
        self._head, self._tail = bytearray(), bytearray()

    def feed(self, data: bytes) -> None:
        self._write(data)
        free = _HEAD_BYTES - len(self._head)
        self._head += data[:free]
        if len(data) > free:
            self._tail += data[free:]
            if len(self._tail) > 4 * _TAIL_BYTES:
                del self._tail[:-_TAIL_BYTES]

    def text(self) -> str:
        """At most :data:`RESULT_CHARS` characters and the mark of what was left out."""
        if not self._tail:
            whole = self._head.decode("utf-8", "replace")
            return whole if len(whole) <= RESULT_CHARS else f"{whole[:_HALF]} ... {whole[-_HALF:]}"
        last = (self._head[-_TAIL_BYTES:] + self._tail)[-_TAIL_BYTES:]
        head = self._head[:_TAIL_BYTES].decode("utf-8", "replace")[:_HALF]
        return f"{head} ... {last.decode('utf-8', 'replace')[-_HALF:]}"

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()

    def _write(self, data: bytes) -> None:
        if self._room <= 0 or self._file.closed:
            return
        try:
            self._file.write(data[: self._room])
            self._room -= len(data)
            if self._room < 0:
                self._file.write(f"\n[cut off here: a job may print {self._cap} bytes]\n".encode())
        except OSError:  # a full disk must not stop the job's output from being read
            self._room = 0


class JobLog:
    """Both streams of a job, kept where the job cannot reach them; ``printed`` is told of both in their order.

    Fed again from the beginning, in another process, it takes both in the same order as the first time.
    """

    def __init__(self, folder: Path, cap: int, printed: Printed) -> None:
        self._printed, self._order = printed, Order(folder / "order", _alone(folder))
        self._streams = {
            STDOUT: StreamLog(folder / "stdout.txt", cap),
            STDERR: StreamLog(folder / "stderr.txt", cap),
        }

    def feed(self, stream: int, data: bytes) -> None:
        """The container's sink."""
        for one, piece in self._order.arrange(STDERR if stream == STDERR else STDOUT, data):
            self._take(one, piece)

    def finish(self) -> None:
        """Take what was held back: the engine has no more."""
        for one, piece in self._order.rest():
            self._take(one, piece)

    @property
    def stdout(self) -> str:
        return self._streams[STDOUT].text()

    @property
    def stderr(self) -> str:
        return self._streams[STDERR].text()

    def close(self) -> None:
        """The output is over. Twice is fine."""
        self.finish()
        self._order.close()
        self._printed.end()
        for stream in self._streams.values():
            stream.close()

    def _take(self, stream: int, data: bytes) -> None:
        self._streams[stream].feed(data)
        self._printed.feed(stream, data)


def _alone(folder: Path) -> tuple[int, int]:
    """The one stream that an earlier reader has found something in, and the size of that."""
    sizes = dict[int, int]()
    for stream, name in ((STDOUT, "stdout.txt"), (STDERR, "stderr.txt")):
        with contextlib.suppress(FileNotFoundError):
            if size := (folder / name).stat().st_size:
                sizes[stream] = size
    return next(iter(sizes.items())) if len(sizes) == 1 else (0, 0)

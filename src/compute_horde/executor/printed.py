"""What a job has printed lately, both streams in their order, for readers that follow it."""

import asyncio
import bisect
import codecs
import sys
from collections import deque
from typing import Literal, NamedTuple

from compute_horde.executor.runtime import STDERR
from compute_horde.protocol.control import LogPiece

Stream = Literal["stdout", "stderr"]

KEPT_BYTES = 4 * 1024 * 1024
"""Memory that the text of one job may occupy."""

_ENTRY_CHARS = 8 * 1024
_ENTRY_BYTES = 150  # an entry's own objects, its text apart
_PIECE_CHARS = 64  # what a piece costs an answer beside its text


class _Entry(NamedTuple):
    """``position``: characters of both streams before it; ``offset``: of its own stream."""

    position: int
    stream: Stream
    offset: int
    text: str

    @property
    def size(self) -> int:
        return sys.getsizeof(self.text) + _ENTRY_BYTES


class Printed:
    """The recent end of both streams. A position counts the characters of both from the beginning.

    Feed it from the event loop only. Old text is dropped once the whole is larger than ``kept_bytes``.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept = kept_bytes
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": decoder("replace"), "stderr": decoder("replace")}
        self._offsets = {"stdout": 0, "stderr": 0}
        self._entries: deque[_Entry] = deque()
        self._size, self._news = 0, asyncio.Event()
        self.total, self.ended = 0, False

    def feed(self, stream: int, data: bytes) -> None:
        """Take what was printed; after :meth:`end` it is ignored."""
        if not self.ended:
            self._decode("stderr" if stream == STDERR else "stdout", data)

    def end(self) -> None:
        """Nothing more will be printed. Twice is fine."""
        if not self.ended:
            for name in ("stdout", "stderr"):
                self._decode(name, b"", final=True)
            self.ended = True
            self._news.set()

    async def behind(self, position: int) -> None:
        """Return when there is something behind ``position``, or the output is over."""
        while self.total <= position and not self.ended:
            self._news.clear()
            await self._news.wait()

    def read(self, position: int, limit: int) -> tuple[list[LogPiece], int]:
        """At most about ``limit`` characters behind ``position``, and the position behind them.

        What is not kept any more is left out; a piece counts a little more than its text.
        """
        pieces: list[LogPiece] = []
        start = bisect.bisect_right(self._entries, position, key=lambda entry: entry.position) - 1
        position = min(position, self.total)
        for number in range(max(0, start), len(self._entries)):
            entry = self._entries[number]
            skipped = max(0, position - entry.position)
            text = entry.text[skipped : skipped + max(0, limit - _PIECE_CHARS)]
            if skipped < len(entry.text):
                if not text:
                    break
                limit -= _add(pieces, LogPiece(stream=entry.stream, offset=entry.offset + skipped, text=text))
                position = entry.position + skipped + len(text)
        return pieces, position

    def _decode(self, name: Stream, data: bytes, *, final: bool = False) -> None:
        text = self._decoders[name].decode(data, final)
        for start in range(0, len(text), _ENTRY_CHARS):
            self._append(name, text[start : start + _ENTRY_CHARS])
        if text:
            while self._size > self._kept:
                self._size -= self._entries.popleft().size
            self._news.set()

    def _append(self, name: Stream, text: str) -> None:
        entry = _Entry(self.total, name, self._offsets[name], text)
        last = self._entries[-1] if self._entries else None
        if last is not None and last.stream == name and len(last.text) + len(text) <= _ENTRY_CHARS:
            self._size -= self._entries.pop().size
            entry = last._replace(text=last.text + text)
        self._entries.append(entry)
        self._size += entry.size
        self.total += len(text)
        self._offsets[name] += len(text)


def _add(pieces: list[LogPiece], piece: LogPiece) -> int:
    """Append, or lengthen the last where it goes on; what that costs."""
    last = pieces[-1] if pieces else None
    if last is None or last.stream != piece.stream or last.offset + len(last.text) != piece.offset:
        pieces.append(piece)
        return len(piece.text) + _PIECE_CHARS
    pieces[-1] = last.model_copy(update={"text": last.text + piece.text})
    return len(piece.text)

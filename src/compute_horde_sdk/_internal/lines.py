"""From pieces of two streams, cut anywhere, to lines. No I/O."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Stream = Literal["stdout", "stderr"]

MAX_LINE_CHARS = 64 * 1024
"""A longer line comes in parts."""

RESULT_HALF_CHARS = 500_000
"""A result's longer stream is its first and last so many characters, with :data:`LEFT_OUT` between (4.4)."""

LEFT_OUT = " ... "
_REMEMBERED_CHARS = 4096
_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class LogLine:
    """One line that a job printed.

    * ``text``: without its end
    * ``gap``: a notice of output that was not kept
    * ``attempt``: the attempt that printed it, from 1
    """

    stream: Stream
    text: str
    gap: bool = False
    attempt: int = 1


class LineSplitter:
    """One stream of one attempt. ``feed`` takes its pieces in any sizes; ``position``: characters seen."""

    def __init__(self, stream: Stream, attempt: int = 1) -> None:
        self._stream: Stream = stream
        self._attempt = attempt
        self._partial = ""
        self._after_cr = False
        self._seen = ""
        self.position = 0

    def feed(self, offset: int, text: str) -> Iterator[LogLine]:
        """The lines that this piece completes. What was seen before is skipped, what is missing is told."""
        if offset > self.position:
            yield from self.gap(offset - self.position)
            self.position = offset
        fresh = text[self.position - offset :]
        self.position += len(fresh)
        self._seen = (self._seen + fresh)[-_REMEMBERED_CHARS:]
        yield from self._split(fresh)

    def end(self, whole: str) -> Iterator[LogLine]:
        """What the job's result has beyond what was seen, and the line that has no end."""
        yield from self._rest(whole)
        if self._partial:
            yield self._line(self._partial)
            self._partial = ""

    def gap(self, chars: int | None) -> Iterator[LogLine]:
        """End the line in hand, and say that output is missing."""
        if self._partial:
            yield self._line(self._partial)
        self._partial, self._after_cr = "", False
        count = "" if chars is None else f"{chars} "
        yield self._line(f"[{count}characters of output were not kept]", gap=True)

    def _rest(self, whole: str) -> Iterator[LogLine]:
        shortened = len(whole) == 2 * RESULT_HALF_CHARS + len(LEFT_OUT) and whole.startswith(
            LEFT_OUT, RESULT_HALF_CHARS
        )
        if not shortened:
            yield from self.feed(min(self.position, len(whole)), whole[self.position :])
            return
        head, tail = whole[:RESULT_HALF_CHARS], whole[-RESULT_HALF_CHARS:]
        if self.position < RESULT_HALF_CHARS:
            yield from self.feed(self.position, head[self.position :])
        found = tail.rfind(self._seen) if self.position > RESULT_HALF_CHARS else -1
        if found < 0:
            yield from self.gap(None)
        yield from self._split(tail[found + len(self._seen) :] if found >= 0 else tail)

    def _split(self, text: str) -> Iterator[LogLine]:
        if self._after_cr and text:
            text = text.removeprefix("\n")  # the second half of a CRLF
            self._after_cr = False
        self._partial += text
        start = 0
        for end in _END.finditer(self._partial):
            yield from self._parts(self._partial[start : end.start()])
            start = end.end()
        self._after_cr = self._partial.endswith("\r") or (self._after_cr and not text)
        self._partial = self._partial[start:]
        while len(self._partial) > MAX_LINE_CHARS:
            yield self._line(self._partial[:MAX_LINE_CHARS])
            self._partial = self._partial[MAX_LINE_CHARS:]

    def _parts(self, line: str) -> Iterator[LogLine]:
        for start in range(0, max(len(line), 1), MAX_LINE_CHARS):
            yield self._line(line[start : start + MAX_LINE_CHARS])

    def _line(self, text: str, *, gap: bool = False) -> LogLine:
        return LogLine(self._stream, text, gap, self._attempt)

"""Server-sent events: bytes in, events out."""

import asyncio
import codecs
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import httpx

MAX_EVENT_CHARS = 128 * 1024 * 1024
"""A result with its artifacts travels in one event; nothing honest is larger."""

MAX_ID_CHARS = 1024


class EventTooLarge(ValueError):  # noqa: N818 - reads as the thing that happened
    """One event grew past :data:`MAX_EVENT_CHARS`."""


@dataclass(frozen=True)
class ServerSentEvent:
    """``id``: the latest id the stream has named, which an event without one inherits."""

    event: str
    data: str
    id: str


class SSEParser:
    """Feed it chunks as they come; lines may end in LF, CR or CRLF and be cut anywhere.

    ``retry_s``: the pause before reconnecting that the server asked for, if it did.
    """

    def __init__(self, last_id: str = "") -> None:
        self.retry_s: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._partial: list[str] = []
        self._after_cr = False
        self._size = 0
        self._id = self._named_id = last_id
        self._event = ""
        self._data: list[str] = []

    @property
    def last_id(self) -> str:
        """The latest id that the stream has named, with an event or without."""
        return self._named_id

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that this chunk completes.

        :raises EventTooLarge: the stream does not end an event.
        """
        text = self._decoder.decode(chunk)
        self._size += len(text)
        if self._size > MAX_EVENT_CHARS:
            raise EventTooLarge(f"an event is larger than {MAX_EVENT_CHARS} characters")
        return [event for line in self._lines(text) if (event := self._take(line))]

    def _lines(self, text: str) -> list[str]:
        if not text:
            return []
        ended_in_cr = text.endswith("\r")
        if self._after_cr and text.startswith("\n"):
            text = text[1:]
        self._after_cr = ended_in_cr
        head, *rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._partial.append(head)
        if not rest:
            return []
        lines = ["".join(self._partial), *rest[:-1]]
        self._partial = [rest[-1]]
        return lines

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id" if _can_be_sent_back(value):
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_s = int(value[:9]) / 1000
            case _:  # a comment, or a field that the standard does not know
                pass
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._named_id = self._id  # counts once the block is whole
        self._data, self._event, self._size = [], "", 0
        return ServerSentEvent(event or "message", "\n".join(data), self._id) if data else None


def _can_be_sent_back(event_id: str) -> bool:
    """Whether the header ``Last-Event-ID`` can hold it; the stream's place would be lost with another."""
    return len(event_id) <= MAX_ID_CHARS and event_id.isascii() and event_id.isprintable()


def is_event_stream(response: httpx.Response) -> bool:
    """Whether the answer is an open stream."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return response.status_code == 200 and kind == "text/event-stream"


async def read_events(
    response: httpx.Response, parser: SSEParser, silence_s: float
) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of an open stream as they come. The time that the reader takes for one does not count.

    :raises TimeoutError: not a byte for ``silence_s``, comments included: nobody is there any more.
    :raises EventTooLarge: see :class:`SSEParser`.
    """
    chunks = response.aiter_bytes()
    while True:
        async with asyncio.timeout(silence_s):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        for event in parser.feed(chunk):
            yield event

"""The event stream's bytes, cut anywhere."""

import pytest

from compute_horde_sdk._internal.wire import sse
from compute_horde_sdk._internal.wire.sse import EventTooLarge, ServerSentEvent, SSEParser

STREAM = (
    "\ufeff: hello\n\n"
    "id: 1\nevent: status\ndata: {\ndata:  é\u2028\x0b}\n\n"
    "retry: 1500\nretry: soon\ndata\n\n"
    "id: 3\nunknown: x\n\n"
    "id: bad\0id\nevent: other\ndata: last\n\n"
    "data: never ended\n"
)
EVENTS = [
    ServerSentEvent("status", "{\n é\u2028\x0b}", "1"),
    ServerSentEvent("message", "", "1"),
    ServerSentEvent("other", "last", "3"),
]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_and_chunks(end: str, size: int) -> None:
    raw = STREAM.replace("\n", end).encode()
    parser = SSEParser()
    found = [event for at in range(0, len(raw), size) for event in parser.feed(raw[at : at + size])]
    assert found == EVENTS
    assert parser.retry_s == 1.5


def test_an_id_goes_on_over_a_reconnection() -> None:
    assert SSEParser("7").feed(b"data: a\n\n") == [ServerSentEvent("message", "a", "7")]


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_CHARS", 100)
    parser = SSEParser()
    for _ in range(20):
        assert len(parser.feed(b"data: " + b"x" * 60 + b"\n\n")) == 1
    with pytest.raises(EventTooLarge):
        parser.feed(b"x" * 101)

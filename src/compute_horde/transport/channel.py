"""The port: a channel of text frames, and what dials one."""

from collections.abc import Mapping
from typing import Protocol


class ChannelClosed(ConnectionError):  # noqa: N818 - an event more than an error
    """The channel is closed, by either side or by the network. ``code`` is the WebSocket close code."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        self.code, self.reason = code, reason
        super().__init__(f"connection closed ({code}{': ' + reason if reason else ''})")


class DialFailed(ConnectionError):  # noqa: N818 - an event more than an error
    """No channel could be opened: refused, unreachable, timed out, or the peer does not speak WebSocket."""


class Channel(Protocol):
    """One ordered, bidirectional stream of text frames. Safe for one sender and one receiver at a time.

    Cancelling ``receive`` loses no frame.
    """

    @property
    def peer(self) -> str:
        """Who is at the other end, for logs: ``host:port``."""
        ...

    @property
    def peer_headers(self) -> Mapping[str, str]:
        """The headers of the other side's handshake: its request's, or its answer's. Any case."""
        ...

    async def send(self, frame: str) -> None:
        """:raises ChannelClosed: the frame may not have arrived."""
        ...

    async def receive(self) -> str:
        """The next frame. :raises ChannelClosed: there will be none."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close; doing so twice is fine."""
        ...


class DialledChannel(Channel, Protocol):
    """The end of the side that has dialled."""

    @property
    def quiet_s(self) -> float:
        """Seconds since anything came in. That of a living peer stays below :data:`~.silence.QUIET_SECONDS`."""
        ...


class Dialer(Protocol):
    """Opens channels."""

    async def dial(
        self, url: str, *, headers: Mapping[str, str] | None = None, max_frame_bytes: int, timeout_s: float = 10
    ) -> DialledChannel:
        """Open a channel to ``ws://`` or ``wss://`` ``url``. :raises DialFailed: says why."""
        ...

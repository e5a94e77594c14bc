"""The validators that are connected right now. In memory: a connection does not outlive its process (G13)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from compute_horde.protocol.facilitator_validator import FRESH_SECONDS
from compute_horde.transport.channel import Channel

REAP_SECONDS = 600
"""A connection that was silent for so long is closed (section 5.1)."""


@dataclass(frozen=True)
class Outgoing:
    """A frame for the validator; ``sent`` is called once it has been handed to the network."""

    frame: str = field(repr=False)  # may hold secrets
    sent: Callable[[], Awaitable[None]] | None = None


@dataclass(eq=False)
class Link:
    """One authenticated connection. ``heard_at``: UNIX seconds of its last frame."""

    hotkey: str
    channel: Channel
    max_frame_bytes: int
    heard_at: float
    outbox: asyncio.Queue[Outgoing | None] = field(default_factory=asyncio.Queue)
    pushed: set[str] = field(default_factory=set)

    def push_job(self, uuid: str, frame: str) -> None:
        """Queue a job that this connection was not yet given."""
        if uuid not in self.pushed:
            self.pushed.add(uuid)
            self.outbox.put_nowait(Outgoing(frame))


class Links:
    """Every live connection, by validator; the newest fresh one gets each job (G16)."""

    def __init__(self) -> None:
        self._links: dict[str, list[Link]] = {}

    def add(self, link: Link) -> None:
        self._links.setdefault(link.hotkey, []).append(link)

    def remove(self, link: Link) -> None:
        """Forget a connection; doing so twice is fine."""
        links = self._links.get(link.hotkey, [])
        if link in links:
            links.remove(link)
        if not links:
            self._links.pop(link.hotkey, None)

    def usable(self, hotkey: str, now: float) -> Link | None:
        """The validator's newest connection that was heard in the last three minutes."""
        fresh = (link for link in reversed(self._links.get(hotkey, [])) if now - link.heard_at < FRESH_SECONDS)
        return next(fresh, None)

    def all(self) -> list[Link]:
        return [link for links in self._links.values() for link in links]

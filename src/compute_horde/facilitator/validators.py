"""The validators that are connected right now. In memory: a connection does not outlive its process (G13)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import uuid4

from compute_horde.protocol.base import Message
from compute_horde.protocol.compat.queued import without_scheduling
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.extensions import Extension
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
    """One authenticated connection.

    * ``heard_at``: UNIX seconds of its last frame
    * ``pushed``: what it was given, so that nothing is given twice
    * ``extensions``: what the validator announced
    * ``instance``: names the validator's database, where it announced ``claims``
    """

    hotkey: str
    channel: Channel
    max_frame_bytes: int
    heard_at: float
    outbox: asyncio.Queue[Outgoing | None] = field(default_factory=asyncio.Queue)
    pushed: set[str] = field(default_factory=set)
    extensions: frozenset[Extension] = frozenset()
    instance: str | None = None
    id: str = field(default_factory=lambda: uuid4().hex)

    def push(self, message: Message) -> None:
        """Queue a message."""
        self.outbox.put_nowait(Outgoing(message.to_frame()))

    def push_once(self, key: str, outgoing: Outgoing) -> None:
        """Queue what this connection was not yet given."""
        if key not in self.pushed:
            self.pushed.add(key)
            self.outbox.put_nowait(outgoing)

    def push_cancel(self, uuid: str) -> None:
        """Queue the request to stop a job, once."""
        self.push_once(f"cancel:{uuid}", Outgoing(V0CancelJobRequest(job_uuid=uuid).to_frame()))


def frame_for(extensions: frozenset[Extension], frame: str) -> str:
    """A job's message as this validator may be sent it."""
    if Extension.QUEUE in extensions or '"scheduling":' not in frame:
        return frame
    return without_scheduling(frame)


class Links:
    """Every live connection of this process, by validator; the newest fresh one gets each job (G16)."""

    def __init__(self) -> None:
        self._links: dict[str, list[Link]] = {}

    def give(self, link: Link, uuid: str, frame: str) -> bool:
        """Queue a job, once; False where this connection takes no frame of its size."""
        fitting = frame_for(link.extensions, frame)
        if len(fitting.encode()) > link.max_frame_bytes:
            return False
        link.push_once(uuid, Outgoing(fitting))
        return True

    def forget(self, uuid: str) -> None:
        """Drop what was noted about a job that has ended."""
        for link in self.all():
            link.pushed -= {uuid, f"cancel:{uuid}", f"large:{uuid}"}

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
        fresh = (link for link in reversed(self._links.get(hotkey, [])) if self.is_fresh(link, now))
        return next(fresh, None)

    def is_fresh(self, link: Link | None, now: float) -> bool:
        """Whether it was heard in the last three minutes."""
        return link is not None and now - link.heard_at < FRESH_SECONDS

    def get(self, link_id: str | None) -> Link | None:
        """The connection of this id, if it is here."""
        return next((link for link in self.all() if link.id == link_id), None)

    def all(self) -> list[Link]:
        return [link for links in self._links.values() for link in links]

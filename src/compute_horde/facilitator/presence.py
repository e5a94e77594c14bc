"""Connections of validators to this replica: made known to the others, and told what there is for them."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

import structlog

from compute_horde.facilitator.registry import LinkRegistry
from compute_horde.facilitator.streams import happened
from compute_horde.facilitator.topics import validator_topic
from compute_horde.facilitator.validators import Link, Links
from compute_horde.lifecycle.clock import RECHECK_SECONDS
from compute_horde.storage.bus import Bus
from compute_horde.storage.errors import StorageError
from compute_horde.telemetry.facilitator import FacilitatorMetrics
from compute_horde.telemetry.logs import bind_peer
from compute_horde.telemetry.vocabulary import Peer

log = structlog.get_logger(__name__)
RETRY_SECONDS = 5.0


class HandsOver(Protocol):
    """Something that is kept for validators in the database."""

    async def hand_over(self, link: Link, *, is_new: bool) -> None:
        """Give a connection what is for it. Doing so twice is fine. :raises DatabaseUnavailable:"""
        ...


class Presence:
    """``sources``: what a connection is given, in this order; at its beginning, and whenever there may be more."""

    def __init__(
        self,
        links: Links,
        registry: LinkRegistry,
        bus: Bus,
        sources: Sequence[HandsOver],
        metrics: FacilitatorMetrics,
    ) -> None:
        self._links, self._registry, self._bus, self._sources = links, registry, bus, sources
        self._metrics = metrics
        self._lost: set[str] = set()

    def here(self) -> list[Link]:
        return self._links.all()

    async def announce(self, link: Link) -> None:
        """A validator has connected. The other replicas know it before this one uses it."""
        await self._registry.add(link)
        if link.hotkey in self._lost:
            self._lost.discard(link.hotkey)
            self._metrics.reconnected(Peer.VALIDATOR)
        self._links.add(link)

    async def welcome(self, link: Link) -> None:
        """Give a new connection what waited for it."""
        for source in self._sources:
            await source.hand_over(link, is_new=True)

    async def attend(self, link: Link, listening: asyncio.Event) -> None:
        """Give a connection what comes up elsewhere, until cancelled. ``listening``: none is missed now."""
        with bind_peer(link.hotkey), self._bus.subscribe(validator_topic(link.hotkey)) as woken:
            listening.set()
            while True:
                await happened(woken, RECHECK_SECONDS)
                woken.clear()
                try:
                    for source in self._sources:
                        await source.hand_over(link, is_new=False)
                except Exception as error:
                    log.warning("not handed over, trying again", validator=link.hotkey, error=repr(error))
                    await asyncio.sleep(RETRY_SECONDS)
                    woken.set()

    def leave(self, link: Link) -> None:
        """The connection is not used any more. Doing so twice is fine."""
        if self._links.get(link.id) is link:
            self._links.remove(link)
            self._lost.add(link.hotkey)

    async def left(self, link: Link) -> None:
        """It has ended: what it was given and its validator has not confirmed is for other connections."""
        with contextlib.suppress(StorageError):  # its lease ends all the same
            await self._registry.remove(link.id)
            self._bus.notify(validator_topic(link.hotkey))

    async def renew(self) -> None:
        """Say that these connections still stand, and note the end of those whose replica is gone."""
        ids = [link.id for link in self._links.all()]
        await self._registry.renew(ids)
        for gone in ids:
            if self._links.get(gone) is None:  # it ended just now
                await self._registry.remove(gone)
        self._metrics.lease_taken_over(await self._registry.clear())

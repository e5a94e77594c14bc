"""Table ``validator_link``: every replica's live connections of validators, for all replicas to see.

A row is held by a lease: it is gone when its process is dead, or has not renewed it. It is kept for a while then,
to say since when a validator is not connected.
"""

from collections.abc import Collection
from dataclasses import dataclass

import structlog
from sqlalchemy import func, insert, select, update

from compute_horde.facilitator.tables import links
from compute_horde.facilitator.validators import Link
from compute_horde.protocol.extensions import EXTENSIONS_HEADER, Extension, announced, announcement
from compute_horde.storage.clock import now
from compute_horde.storage.database import Database
from compute_horde.storage.leases import Owners, is_free

log = structlog.get_logger(__name__)
LEASE_SECONDS = 90.0
RENEW_SECONDS = 30.0


@dataclass(frozen=True)
class LiveLink:
    """A connection of some replica. ``owner``: names its process; ``replica_url``: where that listens."""

    id: str
    validator: str
    instance: str | None
    extensions: frozenset[Extension]
    max_frame_bytes: int
    replica_url: str
    owner: str
    connected_at: float


class LinkRegistry:
    """``owners`` says who is dead; ``replica_url``: where this process listens, known once it does."""

    def __init__(self, database: Database, owners: Owners) -> None:
        self._database, self._owners = database, owners
        self.replica_url = ""

    @property
    def owner(self) -> str:
        """This process."""
        return self._owners.token

    async def add(self, link: Link) -> None:
        """A validator has connected here."""
        row = {
            "id": link.id,
            "validator": link.hotkey,
            "instance": link.instance,
            "extensions": announcement(link.extensions)[EXTENSIONS_HEADER],
            "max_frame_bytes": link.max_frame_bytes,
            "replica_url": self.replica_url,
            "lease_owner": self.owner,
        }
        times = {"connected_at": now(), "lease_until": now() + LEASE_SECONDS}
        async with self._database.begin() as connection:
            await connection.execute(insert(links).values(**row, **times))

    async def renew(self, ids: Collection[str]) -> None:
        """These links of ours still stand, even if another replica thought otherwise for a moment."""
        lease = {"lease_owner": self.owner, "lease_until": now() + LEASE_SECONDS, "gone_at": None}
        if ids:
            async with self._database.begin() as connection:
                await connection.execute(update(links).where(links.c.id.in_(sorted(ids))).values(lease))

    async def remove(self, link_id: str) -> None:
        """The connection has ended. Doing so twice is fine."""
        gone = update(links).where(links.c.id == link_id, links.c.gone_at.is_(None))
        async with self._database.begin() as connection:
            await connection.execute(gone.values(gone_at=now(), lease_owner=None, lease_until=None))

    async def live(self, validator: str) -> list[LiveLink]:
        """A validator's connections to any replica, the newest first; those of dead processes left out."""
        query = select(links).where(links.c.validator == validator, links.c.lease_until > now())
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(links.c.connected_at.desc()))).mappings().all()
        others = {row["lease_owner"] for row in rows} - {self.owner}
        dead = {owner for owner in others if not await self._owners.is_alive(owner)}
        return [
            LiveLink(
                id=row["id"],
                validator=row["validator"],
                instance=row["instance"],
                extensions=announced({EXTENSIONS_HEADER: row["extensions"]}),
                max_frame_bytes=row["max_frame_bytes"],
                replica_url=row["replica_url"],
                owner=row["lease_owner"],
                connected_at=row["connected_at"],
            )
            for row in rows
            if row["lease_owner"] not in dead
        ]

    async def last_seen(self, validator: str) -> float | None:
        """When (UNIX seconds) its last connection ended; None: never, as far as is known."""
        ended = func.coalesce(links.c.gone_at, links.c.lease_until)
        query = select(func.max(ended)).where(links.c.validator == validator)
        async with self._database.read() as connection:
            found = (await connection.execute(query)).scalar()
        return None if found is None else min(float(found), await self._database.now())

    async def clear(self) -> int:
        """Note the end of those links whose process is dead or silent; how many these were."""
        dead = await self._owners.dead(links)
        ended = update(links).where(links.c.gone_at.is_(None), is_free(links, dead))
        async with self._database.begin() as connection:
            found = await connection.execute(ended.values(gone_at=now(), lease_owner=None, lease_until=None))
        if found.rowcount:
            log.info("links of a replica that is gone were removed", count=found.rowcount)
        return found.rowcount

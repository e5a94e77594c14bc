"""Leases: rows that one of several processes works on, and that another takes over when it dies.

A table takes part by having :func:`lease_columns`. The way of working: *claim* some rows in one short transaction;
work, with no transaction open; *apply* the outcome in a transaction whose updates have :func:`is_held` in their
condition. Zero updated rows mean that the lease was lost meanwhile: the work is dropped.

A lease is free when nobody has it, when its time is over by the database's clock, or when its owner is known to be
dead (:meth:`Owners.dead`). So a process that was killed is followed at the next look, and one that hangs, or whose
machine vanished, when the lease's time is over. Work that takes longer renews its lease every third of that time.
"""

import secrets
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import ReturningUpdate

from compute_horde.storage.clock import now
from compute_horde.storage.database import Database
from compute_horde.storage.holds import Holds, make_holds

LEASE_S = 30.0
"""A good time for a lease that is renewed while the work goes on."""


def lease_columns() -> Sequence[sa.Column[Any]]:
    """``lease_owner``: a holder, or null. ``lease_until``: UNIX seconds of the database's clock."""
    return sa.Column("lease_owner", sa.String(64)), sa.Column("lease_until", sa.Float(53))


class Owners:
    """This process among those that share a database, and who of them is dead. A dead one never comes back."""

    def __init__(self, database: Database, holds: Holds | None = None) -> None:
        self._database = database
        self._holds = holds or make_holds(database)
        self.token = f"owner-{secrets.token_hex(12)}"
        """Names this process: 30 characters."""

    async def start(self) -> str:
        """Begin to be alive; answers the token. :raises DatabaseUnavailable:"""
        await self._holds.take(self.token)
        return self.token

    def holder(self) -> str:
        """A new name for one claim: it tells two claims of this process from each other. 47 characters."""
        return f"{self.token}.{secrets.token_hex(8)}"

    async def is_alive(self, holder: str) -> bool:
        """Whether the process of this token or holder lives, as far as we know. :raises DatabaseUnavailable:"""
        return not await self._holds.free([_token(holder)])

    async def dead(self, *tables: sa.Table) -> frozenset[str]:
        """The holders in these tables whose process is dead. :raises DatabaseUnavailable:"""
        holders: set[str] = set()
        for table in tables:
            column = table.c.lease_owner
            async with self._database.read() as connection:
                query = sa.select(column).where(column.is_not(None)).distinct()
                holders.update((await connection.execute(query)).scalars())
        free = await self._holds.free({_token(holder) for holder in holders}) if holders else set()
        return frozenset(holder for holder in holders if _token(holder) in free)

    async def close(self) -> None:
        """Be dead: all leases of this process are free. Doing so twice is fine."""
        await self._holds.close()


def _token(holder: str) -> str:
    return holder.partition(".")[0]


def is_free(table: sa.Table, dead: Collection[str] = ()) -> sa.ColumnElement[bool]:
    """The condition that nobody holds the row's lease."""
    free = sa.or_(table.c.lease_owner.is_(None), table.c.lease_until <= now())
    return sa.or_(free, table.c.lease_owner.in_(sorted(dead))) if dead else free


def is_held(table: sa.Table, holder: str) -> sa.ColumnElement[bool]:
    """The condition that this claim still stands: nobody else has taken the row, even if its time is over."""
    return table.c.lease_owner == holder


def claim(
    table: sa.Table,
    holder: str,
    ttl_s: float,
    *where: sa.ColumnElement[bool],
    dead: Collection[str] = (),
    order_by: Sequence[sa.ColumnElement[Any]] = (),
    limit: int | None = None,
) -> ReturningUpdate[Any]:
    """Take free rows; the statement returns them whole, in no order. Rows that another process takes at this very
    moment are passed over without waiting. ``where``: which rows; ``order_by`` and ``limit``: which first."""
    keys = list(table.primary_key.columns)
    chosen = sa.select(*keys).where(is_free(table, dead), *where).order_by(*order_by).limit(limit)
    free = chosen.with_for_update(skip_locked=True).cte("free")
    taken = {"lease_owner": holder, "lease_until": now() + ttl_s}
    same = [key == free.c[key.name] for key in keys]
    return sa.update(table).where(*same).values(taken).returning(*table.c)


def renew(table: sa.Table, holder: str, ttl_s: float, *where: sa.ColumnElement[bool]) -> sa.Update:
    """Hold on for another ``ttl_s`` seconds. Zero updated rows: the lease is lost."""
    return sa.update(table).where(is_held(table, holder), *where).values(lease_until=now() + ttl_s)


def release(table: sa.Table, holder: str, *where: sa.ColumnElement[bool]) -> sa.Update:
    """Let go of the holder's rows."""
    return sa.update(table).where(is_held(table, holder), *where).values(lease_owner=None, lease_until=None)

"""Transactions that must not run beside each other on PostgreSQL. SQLite has one writer at a time anyway."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 1))")


async def one_by_one(connection: AsyncConnection, name: str) -> None:
    """Wait until no other transaction that asked for this name is open, and keep others waiting until this ends.

    Numbers that a sequence hands out are in the order of the commits, for those who read them by this name, when
    each transaction calls this *before* it inserts. Ask for one name in a transaction, and late in it.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(_LOCK, {"name": name})

"""The rows of the outbox: statuses that the facilitator has not acknowledged."""

from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from compute_horde.storage.database import Database
from compute_horde.validator.tables import instance, outbox


class OutboxStore:
    """One transaction per method."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def frame(self, outbox_id: int) -> str | None:
        """None: it was sent already."""
        async with self._database.read() as connection:
            query = select(outbox.c.frame).where(outbox.c.id == outbox_id)
            return (await connection.execute(query)).scalar_one_or_none()

    async def discard(self, outbox_ids: Sequence[int]) -> None:
        """Forget statuses that the facilitator has acknowledged."""
        async with self._database.begin() as connection:
            await connection.execute(delete(outbox).where(outbox.c.id.in_(outbox_ids)))

    async def instance(self) -> str:
        """The name of this database among those of validators with the same key; made at the first use."""
        query = select(instance.c.name)
        async with self._database.read() as connection:
            if name := (await connection.execute(query)).scalar_one_or_none():
                return str(name)
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(instance).values(id=1, name=str(uuid4())))
        except IntegrityError:
            pass  # another process was quicker
        async with self._database.read() as connection:
            return str((await connection.execute(query)).scalar_one())

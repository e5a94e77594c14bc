"""Receipts on the miner: checked, countersigned, stored, served page by page (section 9)."""

import asyncio
import time
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.miner.store import Also, Clock
from compute_horde.miner.tables import receipts
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.receipts import (
    PAGE_SECONDS,
    JobAcceptedPayload,
    JobFinishedPayload,
    JobStartedPayload,
    Receipt,
    page_at,
    page_line,
    parse_line,
)
from compute_horde.protocol.signing import Signer, Verifier, verify_hex
from compute_horde.storage.database import Database

Payload = JobStartedPayload | JobAcceptedPayload | JobFinishedPayload

RETENTION_SECONDS = 2 * 24 * 3600
MAX_EXCUSES = 100
_PAGE_LOCK = 0x4D494E45


class Excerpt(NamedTuple):
    """The part of a page from ``start`` on; ``total`` is the length of the whole page in bytes."""

    body: bytes
    start: int
    total: int


def receipt_problem(payload: Payload, signature: str, verifier: Verifier, **expected: str) -> str | None:
    """Why a validator's receipt is refused, or None when it is good: each expected field, then the signature."""
    for name, value in expected.items():
        if getattr(payload, name) != value:
            return f"its {name} is {str(getattr(payload, name))[:64]!r}, expected {value!r}"
    if not verify_hex(verifier, payload.validator_hotkey, payload.signed_bytes(), signature):
        return "the validator's signature is not valid"
    return None


class ReceiptBook:
    """Countersigns with the miner's key. Pages are append-only: byte offsets stay what they were."""

    def __init__(self, database: Database, signer: Signer, clock: Clock = time.time) -> None:
        self._database, self._signer, self._clock = database, signer, clock

    @property
    def hotkey(self) -> str:
        return self._signer.ss58_address

    def entry(self, payload: Payload, validator_signature: str) -> Also:
        """What stores a checked receipt, within a transaction; the first of its job and kind wins (9.3)."""
        receipt = Receipt(
            payload=payload,
            validator_signature=validator_signature,
            miner_signature=payload.sign(self._signer),
        )

        async def store(connection: AsyncConnection) -> None:
            await self._store(connection, receipt)

        return store

    async def _store(self, connection: AsyncConnection, receipt: Receipt) -> None:
        if connection.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
            await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_PAGE_LOCK})"))
        page, line = page_at(self._clock()), page_line(receipt)
        payload = receipt.payload
        begins = payload.timestamp.timestamp()
        end = sa.select(sa.func.max(receipts.c.start + receipts.c.size)).where(receipts.c.page == page)
        values = {
            "job_uuid": payload.job_uuid,
            "kind": payload.receipt_type,
            "executor_class": payload.executor_class.value if isinstance(payload, JobStartedPayload) else None,
            "organic": isinstance(payload, JobStartedPayload) and payload.is_organic,
            "valid_from": begins,
            "valid_until": begins + (0 if isinstance(payload, JobFinishedPayload) else payload.ttl),
            "page": page,
            "start": await connection.scalar(end) or 0,
            "size": len(line.encode()),
            "line": line,
        }
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        await connection.execute(
            insert(receipts).values(values).on_conflict_do_nothing(index_elements=["job_uuid", "kind"])
        )

    async def page(self, page: int, start: int = 0) -> Excerpt | None:
        """A page from byte ``start`` on; None where nothing was stored."""
        end = sa.select(sa.func.max(receipts.c.start + receipts.c.size)).where(receipts.c.page == page)
        lines = sa.select(receipts.c.start, receipts.c.line).where(
            receipts.c.page == page, receipts.c.start + receipts.c.size > start
        )
        async with self._database.read() as connection:
            total = await connection.scalar(end)
            if total is None:
                return None
            rows = (await connection.execute(lines.order_by(receipts.c.start))).all()
        body = "".join(row.line for row in rows).encode()
        return Excerpt(body[start - rows[0].start :] if rows else b"", start, int(total))

    async def excuses(self, executor_class: ExecutorClass, at: float, job_uuid: str) -> list[Receipt]:
        """Started receipts that show why there is no free executor at a moment (section 6.6)."""
        statement = (
            sa.select(receipts.c.line)
            .where(
                receipts.c.kind == "JobStartedReceipt",
                receipts.c.organic.is_(True),
                receipts.c.executor_class == executor_class.value,
                receipts.c.valid_from <= at,
                receipts.c.valid_until >= at,
                receipts.c.job_uuid != job_uuid,
            )
            .order_by(receipts.c.id.desc())
            .limit(MAX_EXCUSES)
        )
        async with self._database.read() as connection:
            return [parse_line(line) for line in await connection.scalars(statement)]

    async def purge(self, pause_s: float = 0.05) -> int:
        """Drop whole pages that are past their retention, one at a time (section 9.3); how many receipts."""
        oldest = page_at(self._clock() - RETENTION_SECONDS - PAGE_SECONDS)
        old = sa.select(receipts.c.page).where(receipts.c.page < oldest).distinct().order_by(receipts.c.page)
        async with self._database.read() as connection:
            pages = [*await connection.scalars(old)]
        dropped = 0
        for page in pages:
            async with self._database.begin() as connection:
                dropped += (await connection.execute(receipts.delete().where(receipts.c.page == page))).rowcount
            await asyncio.sleep(pause_s)
        return dropped

"""Receipt pages: order, ranges, compression (section 9.4)."""

import asyncio
import gzip
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from compute_horde.miner import pages
from compute_horde.miner.receipts import ReceiptBook
from compute_horde.miner.testing import ALICE, MINER, finished_receipt, started
from compute_horde.protocol.receipts import PAGE_SECONDS, parse_line
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate, unmigrate

NOW = 1_700_000_100.0
PAGE = int(NOW // PAGE_SECONDS)
NAME = f"{PAGE}.jsonl"


class Shelf:
    """A book, its database and a clock that the test sets."""

    def __init__(self, database: Database) -> None:
        self.now = NOW
        self.database = database
        self.book = ReceiptBook(database, MINER, lambda: self.now)

    async def add(self, job_uuid: str | None = None) -> None:
        payload = started(job_uuid or str(uuid.uuid4()))
        async with self.database.begin() as connection:
            await self.book.entry(payload, payload.sign(ALICE))(connection)


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'receipts.db'}")
    await migrate(database, "miner")
    yield Shelf(database)
    await database.close()


@pytest.mark.parametrize(
    "name", ["", "5", "x.jsonl", "-1.jsonl", "5.json", "5.jsonl.gz", "\u0665.jsonl", "9" * 11 + ".jsonl"]
)
def test_names_that_are_no_pages(name: str) -> None:
    assert pages.page_number(name) is None


def test_a_page_name() -> None:
    assert pages.page_number("5666667.jsonl") == 5666667


async def test_an_empty_page_is_not_found(shelf: Shelf) -> None:
    for asked in (None, "bytes=0-"):
        assert (await pages.answer(shelf.book, NAME, asked, None)).status == 404


async def test_offsets_stay_as_a_page_grows(shelf: Shelf) -> None:
    await shelf.add()
    first = await pages.answer(shelf.book, NAME, None, "")
    await asyncio.gather(*(shelf.add() for _ in range(3)))
    rest = await pages.answer(shelf.book, NAME, f"bytes={len(first.body)}-", "")
    whole = await pages.answer(shelf.book, NAME, None, "")
    assert rest.status == 206
    assert first.body + rest.body == whole.body
    total = len(whole.body)
    assert rest.headers["Content-Range"] == f"bytes {len(first.body)}-{total - 1}/{total}"
    assert [len(parse_line(line).payload.job_uuid) for line in whole.body.decode().splitlines()] == [36] * 4


async def test_every_range_of_a_page(shelf: Shelf) -> None:
    await shelf.add()
    await shelf.add()
    whole = (await pages.answer(shelf.book, NAME, None, None)).body
    for start in range(0, len(whole), 97):
        assert (await pages.answer(shelf.book, NAME, f"bytes={start}-", None)).body == whole[start:]
        part = await pages.answer(shelf.book, NAME, f"bytes={start}-{start + 9}", None)
        assert part.body == whole[start : start + 10]
    for past in (f"bytes={len(whole)}-", "bytes=5-4", f"bytes={10**17}-"):
        answer = await pages.answer(shelf.book, NAME, past, None)
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    for ignored in ("bytes=-5", "bytes=0-1,3-4", "lines=0-", "bytes=x-"):
        assert (await pages.answer(shelf.book, NAME, ignored, None)).status == 200


@pytest.mark.parametrize(
    ("accepts", "compressed"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("*", True), ("gzip;q=0", False), ("br", False), ("", False)],
)
async def test_compression_is_for_those_who_ask(shelf: Shelf, accepts: str, compressed: bool) -> None:
    await shelf.add()
    plain = (await pages.answer(shelf.book, NAME, None, None)).body
    answer = await pages.answer(shelf.book, NAME, None, accepts)
    assert ("Content-Encoding" in answer.headers) is compressed
    assert (gzip.decompress(answer.body) if compressed else answer.body) == plain


async def test_a_page_is_of_the_moment_of_storing_and_the_first_wins(shelf: Shelf) -> None:
    job = str(uuid.uuid4())
    await shelf.add(job)
    shelf.now += PAGE_SECONDS
    await shelf.add(job)
    await shelf.add()
    first, second = await shelf.book.page(PAGE), await shelf.book.page(PAGE + 1)
    assert first is not None
    assert second is not None
    assert first.body.count(b"\n") == second.body.count(b"\n") == 1


async def test_pages_are_dropped_whole_after_two_days(shelf: Shelf) -> None:
    await shelf.add()
    await shelf.book.purge()
    assert await shelf.book.page(PAGE) is not None
    shelf.now += 2 * 24 * 3600 + 3 * PAGE_SECONDS
    await shelf.book.purge()
    assert await shelf.book.page(PAGE) is None


async def test_only_started_receipts_are_excuses(shelf: Shelf) -> None:
    job = str(uuid.uuid4())
    await shelf.add(job)
    finished = finished_receipt(job)
    async with shelf.database.begin() as connection:
        await shelf.book.entry(finished.payload, finished.signature)(connection)
    at = finished.payload.timestamp.timestamp() + 1
    payload = started(job)
    assert len(await shelf.book.excuses(payload.executor_class, at, str(uuid.uuid4()))) == 1
    assert await shelf.book.excuses(payload.executor_class, at, job) == []
    assert await shelf.book.excuses(payload.executor_class, at + 60, str(uuid.uuid4())) == []


async def test_the_schema_can_be_taken_back(shelf: Shelf) -> None:
    await unmigrate(shelf.database, "miner")
    await migrate(shelf.database, "miner")
    await shelf.add()

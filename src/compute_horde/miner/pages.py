"""Receipt pages over HTTP: whole, gzipped, or from a byte on (section 9.4). Pure but for the book."""

import gzip
import re
from dataclasses import dataclass, field

from compute_horde.miner.receipts import ReceiptBook

_RANGE = re.compile(r"^bytes=(\d{1,18})-(\d{1,18})?$")
_MAX_PAGE = 2**31


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whatever the framework."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


_NOTHING = Answer(404)


def page_number(name: str) -> int | None:
    """``<page>.jsonl``."""
    stem, dot, suffix = name.partition(".")
    plausible = dot and suffix == "jsonl" and stem.isascii() and stem.isdigit() and len(stem) <= 10
    return int(stem) if plausible and int(stem) < _MAX_PAGE else None


async def answer(book: ReceiptBook, name: str, range_header: str | None, accept_encoding: str | None) -> Answer:
    """A Range that is no single ``bytes=N-[M]`` is ignored, as HTTP has it."""
    page = page_number(name)
    if page is None:
        return _NOTHING
    wanted = _RANGE.match((range_header or "").strip())
    if wanted is not None:
        return await _part(book, page, int(wanted[1]), int(wanted[2]) if wanted[2] else None)
    whole = await book.page(page)
    if whole is None:
        return _NOTHING
    headers = {"Accept-Ranges": "bytes", "Vary": "Accept-Encoding"}
    if _takes_gzip(accept_encoding):
        return Answer(200, gzip.compress(whole.body, 6), headers | {"Content-Encoding": "gzip"})
    return Answer(200, whole.body, headers)


async def _part(book: ReceiptBook, page: int, start: int, last: int | None) -> Answer:
    found = await book.page(page, start)
    if found is None:
        return _NOTHING
    if start >= found.total or (last is not None and last < start):
        return Answer(416, headers={"Content-Range": f"bytes */{found.total}"})
    body = found.body if last is None else found.body[: last - start + 1]
    where = f"bytes {start}-{start + len(body) - 1}/{found.total}"
    return Answer(206, body, {"Accept-Ranges": "bytes", "Content-Range": where})


def _takes_gzip(accept_encoding: str | None) -> bool:
    for item in (accept_encoding or "").lower().split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip() in ("gzip", "*"):
            return re.fullmatch(r"\s*q=0(\.0*)?\s*", parameters) is None
    return False

"""Writes that must not be lost: repeated until the database takes them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog

from compute_horde.storage.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")


async def persist(work: Callable[[bool], Awaitable[T]], pauses: Callable[[], Iterator[float]], what: str) -> T:
    """What ``work`` answers, once the database is there and has room; nothing is sent meanwhile.

    ``work`` gets False at first, then True: an earlier call of it may have been carried out.
    """
    retries, again = pauses(), False
    while True:
        try:
            return await work(again)
        except DatabaseUnavailable as error:
            log.warning("the database does not take a write, it is tried again", what=what, error=str(error))
        again = True
        await asyncio.sleep(next(retries))

"""Writes that must not be lost: repeated until the database takes them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog

from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.telemetry.outages import Outages

log = structlog.get_logger(__name__)

T = TypeVar("T")


async def persist(
    work: Callable[[bool], Awaitable[T]],
    pauses: Callable[[], Iterator[float]],
    what: str,
    outages: Outages | None = None,
) -> T:
    """What ``work`` answers, once the database is there and has room; nothing is sent meanwhile.

    ``work`` gets False at first, then True: an earlier call of it may have been carried out.
    """
    retries, again = pauses(), False
    while True:
        try:
            done = await work(again)
        except DatabaseUnavailable as error:
            if outages is not None:
                outages.failed()
            log.warning("the database does not take a write, it is tried again", what=what, error=str(error))
        else:
            if outages is not None:
                outages.worked()
            return done
        again = True
        await asyncio.sleep(next(retries))

"""The user's jobs, newest first, on facilitators that can say so and on those that cannot."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.sdk_facilitator import Job, JobPage
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.port import JobQuery, JobSnapshot
from compute_horde_sdk._internal.wire.body import TOO_LARGE
from compute_horde_sdk._internal.wire.http import Facilitator, Request
from compute_horde_sdk._internal.wire.reading import snapshot_of

LIST_PATH = "/api/v1/jobs/"
PAGE_SIZES = (100, 10, 1)
"""Jobs in one page; the next smaller number when a page with all its results is too large to be read."""

MAX_PASSES = 10
"""Readings of a list without an order, until as many jobs were seen as there are."""


def list_request(query: JobQuery) -> Request:
    """The request for one page; what is not asked for is left out."""
    asked: dict[str, str | int | list[str]] = {"page_size": query.page_size}
    if query.before is None:
        asked["page"] = query.page
    else:
        asked["before"] = query.before
    if query.queue is not None:
        asked["tag"] = query.queue
    if query.pending is not None:
        asked["pending"] = "true" if query.pending else "false"
    return Request("GET", LIST_PATH, params=asked)


async def iterate(facilitator: Facilitator, queue: str | None, pending: bool | None) -> AsyncIterator[JobSnapshot]:
    """See :meth:`Horde.iterate <compute_horde_sdk._internal.port.Horde.iterate>`."""
    if Extension.QUEUES in await facilitator.extensions():
        async for snapshot in _newest_first(facilitator, queue, pending):
            yield snapshot
        return
    found = [snapshot_of(job) async for job in read_all(facilitator, queue)]
    found.sort(key=lambda one: (one.created_at, one.uuid), reverse=True)
    for snapshot in found:
        if pending is None or snapshot.status.is_in_progress() is pending:
            yield snapshot


async def read_all(facilitator: Facilitator, queue: str | None) -> AsyncIterator[Job]:
    """Every job of the queue once, in no order, from a list that has none.

    :raises ComputeHordeError: refused, or out of reach.
    """
    seen: set[str] = set()
    sizes = list(PAGE_SIZES)
    for _ in range(MAX_PASSES):
        count = 0
        try:
            async with aclosing(_one_pass(facilitator, queue, sizes[0])) as pages:
                async for page in pages:
                    count = page.count
                    for job in page.results:
                        if job.uuid not in seen:
                            seen.add(job.uuid)
                            yield job
        except ComputeHordeResponseError as error:
            _smaller(sizes, error)
            continue
        if len(seen) >= count:
            return


async def _one_pass(facilitator: Facilitator, queue: str | None, size: int) -> AsyncGenerator[JobPage, None]:
    number = 1
    while True:
        try:
            page = await facilitator.call(JobPage, list_request(JobQuery(number, size, queue or None)))
        except ComputeHordeNotFoundError:
            if number == 1:
                raise
            return  # the last page went away meanwhile
        yield page
        if page.next is None or not page.results or number * size >= page.count:
            return
        number += 1


async def _newest_first(
    facilitator: Facilitator, queue: str | None, pending: bool | None
) -> AsyncIterator[JobSnapshot]:
    places, sizes = [""], list(PAGE_SIZES)
    while True:
        query = JobQuery(page_size=sizes[0], queue=queue, pending=pending, before=places[-1])
        try:
            page = await facilitator.call(JobPage, list_request(query))
        except ComputeHordeValidationError as error:
            if error.field != "before" or len(places) == 1:
                raise
            places.pop()  # that job was deleted meanwhile: go on behind the one before it
            continue
        except ComputeHordeResponseError as error:
            _smaller(sizes, error)
            continue
        for job in page.results:
            yield snapshot_of(job)
        if page.next is None or not page.results:
            return
        places = [job.uuid for job in page.results]


def _smaller(sizes: list[int], error: ComputeHordeResponseError) -> None:
    """Go to the next smaller page, if that may help; else raise the error."""
    if error.code != TOO_LARGE or len(sizes) == 1:
        raise error
    sizes.pop(0)

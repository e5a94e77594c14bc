"""``GET /api/v1/events/``: server-sent events (ours)."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import structlog
from litestar import get
from litestar.response import Stream

from compute_horde.facilitator.http import AnyRequest, Desk, LoggedIn, viewer
from compute_horde.facilitator.openapi import EVENT_PARAMETERS, describe
from compute_horde.facilitator.paging import asked_position
from compute_horde.storage.errors import StorageError

log = structlog.get_logger(__name__)
MAX_POSITION = 2**63 - 1


@get(
    "/api/v1/events/",
    operation_class=describe(
        {200: "text/event-stream", 400: "FieldErrors"}, session=True, parameters=EVENT_PARAMETERS
    ),
    operation_id="events",
)
async def events(request: AnyRequest, desk: Desk, session: LoggedIn) -> Stream:
    """Every new status of the user's jobs, as it happens; resumes behind ``Last-Event-ID`` or ``after``."""
    headers, query = request.headers, request.query_params
    asked = {"Last-Event-ID": headers.get("last-event-id"), "after": query.get("after")}
    after = await desk.events.start_after(session, asked_position(asked, MAX_POSITION))
    return sse(desk.events.stream(session, after, viewer(request)))


def sse(stream: AsyncGenerator[bytes, None]) -> Stream:
    """The answer that sends this text as it comes. It ends where the database is away; the client comes back."""
    return Stream(
        _until_away(stream),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _until_away(stream: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(stream):
        try:
            async for text in stream:
                yield text
        except StorageError as error:
            log.warning("a stream ends", error=str(error))

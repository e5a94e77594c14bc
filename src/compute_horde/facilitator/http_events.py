"""``GET /api/v1/events/``: server-sent events (ours)."""

from collections.abc import AsyncIterator

from litestar import get
from litestar.response import Stream

from compute_horde.facilitator.http import AnyRequest, Desk, LoggedIn, knows_cancelled
from compute_horde.facilitator.openapi import EVENT_PARAMETERS, describe
from compute_horde.facilitator.paging import asked_position

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
    after = await desk.events.start_after(asked_position(asked, MAX_POSITION))
    return sse(desk.events.stream(session, after, knows_cancelled=knows_cancelled(request)))


def sse(stream: AsyncIterator[bytes]) -> Stream:
    """The answer that sends this text as it comes."""
    return Stream(
        stream,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )

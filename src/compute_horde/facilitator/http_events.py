"""``GET /api/v1/events/``: server-sent events (ours)."""

from litestar import get
from litestar.response import Stream

from compute_horde.facilitator.errors import ApiError
from compute_horde.facilitator.http import AnyRequest, Desk, LoggedIn
from compute_horde.facilitator.openapi import EVENT_PARAMETERS, describe
from compute_horde.facilitator.paging import whole_number

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
    after = await desk.events.start_after(_position(request))
    return Stream(
        desk.events.stream(session, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _position(request: AnyRequest) -> int | None:
    asked = {"Last-Event-ID": request.headers.get("last-event-id"), "after": request.query_params.get("after")}
    for name, text in asked.items():
        if text:
            number = whole_number(str(text))
            if number is None or number > MAX_POSITION:
                raise ApiError(400, {name: ["A valid integer is required."]})
            return number
    return None

"""``GET /api/v1/jobs/{uuid}/logs/``: a running job's output (ours)."""

from litestar import get
from litestar.response import Stream

from compute_horde.facilitator.http import AnyRequest, Desk, LoggedIn
from compute_horde.facilitator.http_events import sse
from compute_horde.facilitator.http_jobs import JobUuid, checked_uuid
from compute_horde.facilitator.openapi import LOGS_PARAMETERS, describe
from compute_horde.facilitator.paging import asked_position

MAX_OUTPUT_POSITION = 2**53 - 1


@get(
    "/api/v1/jobs/{uuid:str}/logs/",
    operation_class=describe(
        {200: "text/event-stream", 400: "FieldErrors", 404: "Detail", 429: "Detail"},
        session=True,
        parameters=LOGS_PARAMETERS,
    ),
    operation_id="job_logs",
)
async def job_logs(uuid: JobUuid, request: AnyRequest, desk: Desk, session: LoggedIn) -> Stream:
    """What one of the user's jobs prints, while it runs; resumes behind ``Last-Event-ID`` or ``position``."""
    job_uuid = checked_uuid(uuid)
    headers, query = request.headers, request.query_params
    asked = {"Last-Event-ID": headers.get("last-event-id"), "position": query.get("position")}
    position = asked_position(asked, MAX_OUTPUT_POSITION) or 0
    seat = await desk.logs.seat(job_uuid, session.hotkey)
    return sse(desk.logs.stream(session, job_uuid, position, seat))

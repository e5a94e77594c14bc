"""``GET /api/v1/jobs/{uuid}/explanation/``: why a job has not started (ours)."""

from litestar import Response, get

from compute_horde.facilitator.http import Desk, LoggedIn, answer
from compute_horde.facilitator.http_jobs import JobUuid, checked_uuid
from compute_horde.facilitator.openapi import describe


@get(
    "/api/v1/jobs/{uuid:str}/explanation/",
    operation_class=describe({200: "Explanation", 404: "Detail"}, session=True),
    operation_id="explain_job",
)
async def explain_job(uuid: JobUuid, desk: Desk, session: LoggedIn) -> Response[bytes]:
    """Where one of the user's jobs stands and why: what was tried, what was answered, what would help."""
    return answer(await desk.explaining.explain(checked_uuid(uuid), session.hotkey))

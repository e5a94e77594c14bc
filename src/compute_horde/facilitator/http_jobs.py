"""Creating, listing and retrieving jobs (sections 2.5 and 2.6)."""

from typing import Annotated

from litestar import Response, get, post
from litestar.params import Parameter

from compute_horde.facilitator.errors import NOT_FOUND, ApiError
from compute_horde.facilitator.http import AnyRequest, Desk, LoggedIn, answer, json_body
from compute_horde.facilitator.job_view import job_view
from compute_horde.facilitator.jobs import is_uuid
from compute_horde.facilitator.openapi import PAGE_PARAMETERS, describe
from compute_horde.facilitator.paging import INVALID_PAGE, PageQuery
from compute_horde.protocol.sdk_facilitator import JobPage

JobUuid = Annotated[str, Parameter(description="The job's UUID.")]


def checked_uuid(text: str) -> str:
    """:raises ApiError: 404, as for a path that does not exist."""
    if not is_uuid(text):
        raise ApiError(404, NOT_FOUND)
    return text.lower()


@post(
    "/api/v1/job-docker/",
    operation_class=describe({201: "Job", 400: "JobError"}, body="JobRequest", session=True, signed=True),
    operation_id="create_job",
)
async def create_job(request: AnyRequest, desk: Desk, session: LoggedIn) -> Response[bytes]:
    """Create a job from a signed request. The same signature again answers with the same job."""
    body = await json_body(request)
    stored = await desk.jobs.create(body, request.headers, desk.rules(session.hotkey))
    return answer(job_view(stored), 201)


@get(
    "/api/v1/jobs/",
    operation_class=describe(
        {200: "JobPage", 400: "FieldErrors", 404: "Detail"}, session=True, parameters=PAGE_PARAMETERS
    ),
    operation_id="list_jobs",
)
async def list_jobs(request: AnyRequest, desk: Desk, session: LoggedIn) -> Response[bytes]:
    """The user's jobs, newest first."""
    query = PageQuery.parse([(name, str(value)) for name, value in request.query_params.multi_items()])
    count, stored = await desk.store.page(
        session.hotkey, offset=query.offset, limit=query.page_size, tag=query.tag, uuids=query.uuids
    )
    if not stored and query.page > 1:
        raise ApiError(404, INVALID_PAGE)
    base = _list_url(request, desk)
    page = JobPage(
        count=count,
        next=query.link(base, query.page + 1) if query.offset + len(stored) < count else None,
        previous=query.link(base, query.page - 1) if query.page > 1 else None,
        results=[job_view(job) for job in stored],
    )
    return answer(page)


@get(
    "/api/v1/jobs/{uuid:str}/",
    operation_class=describe({200: "Job", 404: "Detail"}, session=True),
    operation_id="get_job",
)
async def get_job(uuid: JobUuid, desk: Desk, session: LoggedIn) -> Response[bytes]:
    """One of the user's jobs."""
    return answer(job_view(await desk.jobs.get(checked_uuid(uuid), session.hotkey)))


def _list_url(request: AnyRequest, desk: Desk) -> str:
    public = desk.settings.public_url
    return f"{public.rstrip('/')}/api/v1/jobs/" if public else f"{str(request.base_url).rstrip('/')}/api/v1/jobs/"

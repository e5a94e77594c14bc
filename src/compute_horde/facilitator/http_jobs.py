"""Creating, listing and retrieving jobs (sections 2.5 and 2.6)."""

from collections.abc import AsyncIterator
from typing import Annotated

from litestar import Response, get, post
from litestar.params import Parameter
from litestar.response import Stream

from compute_horde.facilitator.errors import NOT_FOUND, ApiError
from compute_horde.facilitator.http import JSON, AnyRequest, Desk, LoggedIn, answer, json_body, viewer
from compute_horde.facilitator.job_view import Viewer, job_view
from compute_horde.facilitator.jobs import is_uuid
from compute_horde.facilitator.listing import Chosen, Part
from compute_horde.facilitator.openapi import PAGE_PARAMETERS, describe
from compute_horde.facilitator.paging import INVALID_PAGE, PageQuery
from compute_horde.facilitator.rows import UnknownJob
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
    return answer(job_view(stored, viewer(request), desk.now()), 201)


@get(
    "/api/v1/jobs/",
    operation_class=describe(
        {200: "JobPage", 400: "FieldErrors", 404: "Detail"}, session=True, parameters=PAGE_PARAMETERS
    ),
    operation_id="list_jobs",
)
async def list_jobs(request: AnyRequest, desk: Desk, session: LoggedIn) -> Response[bytes] | Stream:
    """The user's jobs, newest first."""
    query = PageQuery.parse([(name, str(value)) for name, value in request.query_params.multi_items()])
    chosen = Chosen(session.hotkey, query.tag, query.uuids, query.pending)
    base, size = _list_url(request, desk), query.page_size
    previous = query.link(base, "page", query.page - 1) if query.page > 1 else None
    if query.before is None:
        part = await desk.job_list.page(chosen, query.offset, size)
        following = query.link(base, "page", query.page + 1)
        if not part.batches and query.page > 1:
            raise ApiError(404, INVALID_PAGE)
    else:
        part = await _after(desk, chosen, query.before, size)
        following = query.link(base, "before", part.last) if part.last else ""
        previous = None
    page = JobPage(count=part.count, next=following if part.more else None, previous=previous, results=[])
    if len(part.batches) > 1:
        return Stream(_page_text(page, part, desk, viewer(request)), media_type=JSON)
    loaded = await desk.job_list.load(part.batches[0]) if part.batches else []
    results = [job_view(job, viewer(request), desk.now()) for job in loaded]
    return answer(page.model_copy(update={"results": results}))


async def _page_text(page: JobPage, part: Part, desk: Desk, viewer: Viewer) -> AsyncIterator[bytes]:
    """A page that is too large to be held, as it is read."""
    begin, _, end = page.to_frame().rpartition("[]")
    yield f"{begin}[".encode()
    comma = ""
    for batch in part.batches:
        for job in await desk.job_list.load(batch):
            yield f"{comma}{job_view(job, viewer, desk.now()).to_frame()}".encode()
            comma = ","
    yield f"]{end}".encode()


async def _after(desk: Desk, chosen: Chosen, before: str, size: int) -> Part:
    try:
        return await desk.job_list.after(chosen, before, size)
    except UnknownJob:
        raise ApiError(400, {"before": ["There is no such job of yours."]}) from None


@get(
    "/api/v1/jobs/{uuid:str}/",
    operation_class=describe({200: "Job", 404: "Detail"}, session=True),
    operation_id="get_job",
)
async def get_job(uuid: JobUuid, request: AnyRequest, desk: Desk, session: LoggedIn) -> Response[bytes]:
    """One of the user's jobs."""
    stored = await desk.jobs.get(checked_uuid(uuid), session.hotkey)
    return answer(job_view(stored, viewer(request), desk.now()))


@post(
    "/api/v1/jobs/{uuid:str}/cancel/",
    status_code=200,
    operation_class=describe({200: "Job", 404: "Detail"}, session=True),
    operation_id="cancel_job",
)
async def cancel_job(uuid: JobUuid, request: AnyRequest, desk: Desk, session: LoggedIn) -> Response[bytes]:
    """Stop one of the user's jobs; one that has ended is answered as it is. Asking again changes nothing."""
    job_uuid = checked_uuid(uuid)
    await desk.cancelling.request(job_uuid, session.hotkey)
    stored = await desk.jobs.get(job_uuid, session.hotkey)
    return answer(job_view(stored, viewer(request), desk.now()))


def _list_url(request: AnyRequest, desk: Desk) -> str:
    public = desk.settings.public_url
    return f"{public.rstrip('/')}/api/v1/jobs/" if public else f"{str(request.base_url).rstrip('/')}/api/v1/jobs/"

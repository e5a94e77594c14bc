"""Cheat reports and feedback (sections 2.8 and 2.9)."""

from litestar import HttpMethod, Response, get, post, route

from compute_horde.facilitator.http import AnyRequest, Desk, LoggedIn, answer, json_body
from compute_horde.facilitator.http_jobs import JobUuid, checked_uuid
from compute_horde.facilitator.openapi import describe


@post(
    "/api/v1/cheated-job/",
    operation_class=describe(
        {201: "CheatAnswer", 400: "ReportError", 404: "Error"}, body="CheatReport", session=True, signed=True
    ),
    operation_id="report_cheated_job",
)
async def report_cheated_job(request: AnyRequest, desk: Desk, session: LoggedIn) -> Response[bytes]:
    """Report that a job's result differs from its repetition on the trusted miner."""
    body = await json_body(request)
    await desk.cheat_reports.add(body, request.headers, desk.rules(session.hotkey))
    return answer({"message": "Job reported as cheated"}, 201)


@get(
    "/api/v1/jobs/{uuid:str}/feedback/",
    operation_class=describe({200: "Feedback", 404: "Detail"}, session=True),
    operation_id="get_feedback",
)
async def get_feedback(uuid: JobUuid, desk: Desk, session: LoggedIn) -> Response[bytes]:
    """The feedback on one of the user's jobs."""
    job = await desk.jobs.get(checked_uuid(uuid), session.hotkey)
    return answer(await desk.feedback.get(job.row["uuid"]))


@route(
    "/api/v1/jobs/{uuid:str}/feedback/",
    http_method=[HttpMethod.PUT, HttpMethod.POST],
    status_code=201,
    operation_class=describe(
        {201: "Feedback", 400: "ReportError", 404: "Detail", 409: "Detail"},
        body="Feedback",
        session=True,
        signed=True,
    ),
)
async def give_feedback(uuid: JobUuid, request: AnyRequest, desk: Desk, session: LoggedIn) -> Response[bytes]:
    """Say how right one's job's result was. Once a job."""
    job = await desk.jobs.get(checked_uuid(uuid), session.hotkey)
    body = await json_body(request)
    feedback = await desk.feedback.add(job.row["uuid"], body, request.headers, desk.rules(session.hotkey))
    return answer(feedback, 201)

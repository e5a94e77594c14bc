"""``/auth/nonce`` and ``/auth/login`` (section 2.3); health."""

from litestar import Response, get, post

from compute_horde.facilitator.http import AnyRequest, Desk, answer, json_body
from compute_horde.facilitator.openapi import describe
from compute_horde.protocol.sdk_facilitator import LoginResponse, NonceResponse


@get("/auth/nonce", operation_class=describe({200: "NonceResponse"}), operation_id="nonce")
async def nonce(desk: Desk) -> Response[bytes]:
    """A nonce to sign with the hotkey."""
    return answer(NonceResponse(nonce=desk.login.nonce()), headers={"Cache-Control": "no-store"})


@post(
    "/auth/login",
    operation_class=describe({200: "LoginResponse", 400: "LoginError", 401: "Error"}, body="LoginRequest"),
    operation_id="login",
)
async def login(request: AnyRequest, desk: Desk) -> Response[bytes]:
    """A token, for a signed nonce. Each nonce logs in once."""
    token = await desk.login.token(await json_body(request))
    return answer(LoginResponse(token=token), headers={"Cache-Control": "no-store"})


@get("/health/live", operation_class=describe({200: "Health", 503: "Health"}), operation_id="live")
async def live(desk: Desk) -> Response[bytes]:
    """Whether the process answers and does its work; if not, only a restart helps."""
    report = await desk.health.live()
    return answer(report.to_json(), report.http_status)


@get("/health/ready", operation_class=describe({200: "Health", 503: "Health"}), operation_id="ready")
async def ready(desk: Desk) -> Response[bytes]:
    """Whether jobs can be taken: the database answers."""
    report = await desk.health.ready()
    return answer(report.to_json(), report.http_status)

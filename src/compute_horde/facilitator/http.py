"""What the HTTP edges share: reading requests, writing answers, and errors as JSON."""

import json
import math
from collections.abc import Mapping
from typing import Any

import structlog
from litestar import Request, Response
from litestar.datastructures import MutableScopeHeaders
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.status_codes import HTTP_200_OK
from litestar.types import ExceptionHandlersMap, Scope
from litestar.types import Message as ASGIMessage

from compute_horde.facilitator.errors import NOT_FOUND, REFUSALS, ApiError
from compute_horde.facilitator.facilitator import Facilitator
from compute_horde.facilitator.job_view import Viewer
from compute_horde.facilitator.login import Session
from compute_horde.protocol.base import Message
from compute_horde.protocol.extensions import HTTP_EXTENSIONS, Extension, announced, announcement
from compute_horde.storage.errors import StorageError
from compute_horde.telemetry.facilitator import FacilitatorMetrics
from compute_horde.telemetry.outages import Outages
from compute_horde.telemetry.vocabulary import Refusal

log = structlog.get_logger(__name__)
JSON = "application/json"
NO_DATABASE = "The facilitator's database cannot be used at the moment; try again."
RETRY_SECONDS = 5
_EXTENSIONS = announcement(HTTP_EXTENSIONS)
AnyRequest = Request[Any, Any, Any]
Desk = NamedDependency[Facilitator]
LoggedIn = NamedDependency[Session]


def answer(content: Any, status: int = HTTP_200_OK, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """JSON, from a message or from plain data."""
    text = content.to_frame() if isinstance(content, Message) else json.dumps(content)
    return Response(text.encode(), status_code=status, media_type=JSON, headers=dict(headers or {}))


async def json_body(request: AnyRequest) -> dict[str, Any]:
    """The body as it was sent, key order kept. :raises ApiError: 400."""
    try:
        body = json.loads(await request.body(), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, {"detail": f"JSON parse error - {error}"}) from None
    if not isinstance(body, dict):
        raise ApiError(400, {"non_field_errors": [f"Expected an object, but got {type(body).__name__}."]})
    return body


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is out of range")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def current_session(request: AnyRequest, desk: Desk) -> Session:
    """Dependency: who is logged in. :raises ApiError: 401 (section 2.4)."""
    return desk.login.session(request.headers.get("authorization"))


def viewer(request: AnyRequest) -> Viewer:
    """What this client can be shown."""
    knows = announced(request.headers)
    return Viewer(knows_cancelled=Extension.CANCEL in knows, knows_queue=Extension.QUEUE in knows)


async def announce_extensions(message: ASGIMessage, _scope: Scope) -> None:
    """Before-send hook: say on every HTTP answer, errors included, what is offered beyond the network's API."""
    if message["type"] == "http.response.start":
        MutableScopeHeaders.from_message(message).update(_EXTENSIONS)


class Failures:
    """How requests that cannot be fulfilled are answered, and counted."""

    def __init__(self, metrics: FacilitatorMetrics, outages: Outages) -> None:
        self._metrics, self._outages = metrics, outages

    def handlers(self) -> ExceptionHandlersMap:
        return {
            ApiError: self._on_api_error,
            HTTPException: self._on_http_error,
            StorageError: self._on_storage_error,
            Exception: _on_crash,
        }

    def _on_api_error(self, _request: AnyRequest, error: ApiError) -> Response[bytes]:
        self._metrics.refused(error.refusal)
        return answer(error.body, error.status, error.headers)

    def _on_http_error(self, _request: AnyRequest, error: HTTPException) -> Response[bytes]:
        unknown_path = error.status_code == 404
        self._metrics.refused(Refusal.OTHER if unknown_path else REFUSALS.get(error.status_code, Refusal.OTHER))
        body = NOT_FOUND if unknown_path else {"detail": error.detail}
        return answer(body, error.status_code, dict(error.headers or {}))

    def _on_storage_error(self, request: AnyRequest, error: StorageError) -> Response[bytes]:
        """Nothing is lost: what could not be stored was not promised."""
        self._outages.failed()
        log.error("database not available", path=request.url.path, error=str(error))
        return answer({"detail": NO_DATABASE}, 503, {"Retry-After": str(RETRY_SECONDS)})


def _on_crash(request: AnyRequest, error: Exception) -> Response[bytes]:
    log.error("request failed", path=request.url.path, exc_info=error)
    return answer({"detail": "Internal server error."}, 500)

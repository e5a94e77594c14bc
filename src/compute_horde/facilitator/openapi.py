"""The OpenAPI description: schemas from the protocol's models, so that it cannot drift from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    SecurityScheme,
)
from pydantic.json_schema import models_json_schema

from compute_horde.protocol.base import Message
from compute_horde.protocol.explanation import Explanation
from compute_horde.protocol.sdk_facilitator import (
    CheatReport,
    Feedback,
    Job,
    JobEvent,
    JobLogs,
    JobLogsEnd,
    JobPage,
    JobQueueEvent,
    JobRequest,
    LoginRequest,
    LoginResponse,
    NonceResponse,
)
from compute_horde.protocol.signing import (
    HEADER_SCOPE,
    HEADER_SIGNATORY,
    HEADER_SIGNATURE,
    HEADER_TIMESTAMP,
    HEADER_TYPE,
    SignatureScope,
)

_JSON, _SSE = "application/json", "text/event-stream"
_SENT: tuple[type[Message], ...] = (LoginRequest, JobRequest, CheatReport, Feedback)
_ANSWERED: tuple[type[Message], ...] = (
    *(NonceResponse, LoginResponse, Job, JobPage, Explanation),
    *(JobEvent, JobQueueEvent, JobLogs, JobLogsEnd),
)
_TEXTS = {"type": "array", "items": {"type": "string"}}


def _keyed(*names: str) -> dict[str, Any]:
    text = {"type": "string"}
    return {"type": "object", "properties": dict.fromkeys(names, text), "required": list(names)}


_SIGNATURE_ERROR = _keyed("error", "details")
_FIELD_ERRORS = {"type": "object", "minProperties": 1}
_CHECK = {
    "type": "object",
    "properties": {"status": {"enum": ["ok", "failed"]}, "why": {"type": "string"}, "seconds": {"type": "number"}},
    "required": ["status", "seconds"],
}
_HEALTH = {
    "status": {"enum": ["ok", "unavailable"]},
    "checks": {"type": "object", "additionalProperties": _CHECK},
}
_HAND_WRITTEN: dict[str, Any] = {
    "Detail": _keyed("detail"),
    "Error": _keyed("error"),
    "CheatAnswer": _keyed("message"),
    "Health": {**_keyed("status", "checks"), "properties": _HEALTH},
    "FieldErrors": _FIELD_ERRORS,
    "LoginError": {"anyOf": [_keyed("error"), _keyed("detail"), _FIELD_ERRORS]},
    "JobError": {"anyOf": [_SIGNATURE_ERROR, _TEXTS, _FIELD_ERRORS]},
    "ReportError": {"anyOf": [_SIGNATURE_ERROR, _keyed("error"), _FIELD_ERRORS]},
}


def _schemas() -> dict[str, Any]:
    modes: list[Any] = [(model, "validation") for model in _SENT]
    modes += [(model, "serialization") for model in _ANSWERED]
    _, made = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    return {**made["$defs"], **_HAND_WRITTEN}


def _query(name: str, about: str, schema: dict[str, Any]) -> Parameter:
    return Parameter(name=name, param_in="query", description=about, schema=_raw(schema))


def _header(name: str, schema: dict[str, Any], *, required: bool, about: str = "") -> Parameter:
    return Parameter(name=name, param_in="header", required=required, description=about, schema=_raw(schema))


def _raw(schema: dict[str, Any]) -> Any:
    """Litestar writes plain data of a schema out as it is."""
    return schema


_UUID = {"type": "string", "format": "uuid"}
PAGE_PARAMETERS = (
    _query("page", "From 1; past the end: 404.", {"type": "integer", "minimum": 1}),
    _query("page_size", "Default 10; more than 256 counts as 256.", {"type": "integer", "minimum": 1}),
    _query("tag", "Only jobs with exactly this tag.", {"type": "string"}),
    _query("uuid", "Only these jobs.", {"type": "array", "items": _UUID}),
    _query("pending", "Only jobs under way, or only those that have ended.", {"enum": ["true", "false"]}),
    _query(
        "before",
        "Instead of a page: the jobs older than this one, or from the newest if empty. New jobs leave it alone.",
        {"anyOf": [_UUID, {"type": "string", "maxLength": 0}]},
    ),
)
_POSITION = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
EVENT_PARAMETERS = (
    _query("after", "Resume behind this event.", _POSITION),
    _header("Last-Event-ID", _POSITION, required=False, about="Resume behind this event."),
)
_OUTPUT_POSITION = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
LOGS_PARAMETERS = (
    _query("position", "Only what was printed behind this position.", _OUTPUT_POSITION),
    _header("Last-Event-ID", _OUTPUT_POSITION, required=False, about="The same, after a lost stream."),
)
_SIGNATURE_PARAMETERS = (
    _header(HEADER_TYPE, {"type": "string"}, required=True, about="bittensor"),
    _header(HEADER_SIGNATORY, {"type": "string"}, required=True, about="ss58 of the signer."),
    _header(HEADER_TIMESTAMP, {"type": "integer", "minimum": 0}, required=True, about="UNIX nanoseconds."),
    _header(HEADER_SIGNATURE, {"type": "string"}, required=True, about="base64 of the sr25519 signature."),
    _header(HEADER_SCOPE, {"enum": [scope.value for scope in SignatureScope]}, required=False),
)


def describe(
    answers: Mapping[int, str],
    *,
    body: str | None = None,
    session: bool = False,
    signed: bool = False,
    parameters: Sequence[Parameter] = (),
) -> type[Operation]:
    """The description of one operation. ``answers``: status to the name of a schema, or a media type."""
    statuses = {**answers, **({401: "Detail"} if session else {}), **({413: "Detail"} if body else {})}
    if session or body:
        statuses[503] = "Detail"  # the database is away
    responses = {str(status): _response(name) for status, name in sorted(statuses.items())}
    more = [*parameters, *(_SIGNATURE_PARAMETERS if signed else ())]
    request_body = RequestBody(content={_JSON: _media(body)}, required=True) if body else None

    @dataclass
    class Described(Operation):
        responses: Any = field(default_factory=dict)

        def __post_init__(self) -> None:
            self.responses = responses
            self.request_body = request_body
            self.parameters = [*(self.parameters or []), *more] or None
            self.security = [{"token": []}] if session else None

    return Described


def _media(name: str) -> OpenAPIMediaType:
    return OpenAPIMediaType(schema=Reference(ref=f"#/components/schemas/{name}"))


def _response(name: str) -> OpenAPIResponse:
    if name == _SSE:
        return OpenAPIResponse("Events.", content={_SSE: OpenAPIMediaType(schema=_raw({"type": "string"}))})
    return OpenAPIResponse(name, content={_JSON: _media(name)})


OPENAPI = OpenAPIConfig(
    title="Compute Horde facilitator",
    version="1",
    path="/openapi.json",
    render_plugins=[JsonRenderPlugin(path="/")],
    components=Components(
        schemas=_schemas(),
        security_schemes={"token": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")},
    ),
)

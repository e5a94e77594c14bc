"""Answers that are not a success: status and exact body (sections 2.3 to 2.9)."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from compute_horde.protocol.signing import InvalidSignature
from compute_horde.telemetry.vocabulary import Refusal

NOT_FOUND = {"detail": "Not found."}
NO_JOB = {"detail": "No Job matches the given query."}
REQUIRED = "This field is required."
REFUSALS = {
    400: Refusal.MALFORMED,
    401: Refusal.LOGIN,
    404: Refusal.UNKNOWN_JOB,
    409: Refusal.REPEATED,
    413: Refusal.TOO_LARGE,
    429: Refusal.TOO_MANY,
}
"""What a request that was answered with this status is counted as."""
_RAW_ERRORS = frozenset({"volumes", "uploads"})


class ApiError(Exception):
    """An answer with this status and JSON body. ``refusal``: what it counts as, if the status does not tell."""

    def __init__(
        self, status: int, body: Any, headers: dict[str, str] | None = None, *, refusal: Refusal | None = None
    ) -> None:
        self.status, self.body, self.headers = status, body, headers or {}
        self.refusal = refusal or REFUSALS.get(status, Refusal.OTHER)
        super().__init__(f"{status}: {body}")


def unauthorized(detail: str, refusal: Refusal = Refusal.LOGIN) -> ApiError:
    """401 as section 2.4 words it; SDKs look for ``Token expired`` in it."""
    return ApiError(401, {"detail": detail}, {"WWW-Authenticate": "Bearer"}, refusal=refusal)


def signature_missing(details: str) -> ApiError:
    return ApiError(400, {"error": "Signature not found", "details": details}, refusal=Refusal.SIGNATURE)


def signature_invalid(error: InvalidSignature | str, refusal: Refusal = Refusal.SIGNATURE) -> ApiError:
    return ApiError(400, {"error": "Invalid signature provided", "details": str(error)}, refusal=refusal)


def invalid_fields(error: ValidationError) -> ApiError:
    """400 with a list of messages per field; lists nest by index, volumes and uploads give error objects."""
    body: dict[str, Any] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        field = str(item["loc"][0]) if item["loc"] else "non_field_errors"
        if field in _RAW_ERRORS:
            body.setdefault(field, []).append({"type": item["type"], "loc": list(item["loc"]), "msg": item["msg"]})
        elif len(item["loc"]) > 1:
            nested = body.setdefault(field, {})
            nested.setdefault(".".join(str(part) for part in item["loc"][1:]), []).append(_message(item))
        else:
            body.setdefault(field, []).append(_message(item))
    return ApiError(400, body)


def _message(item: ErrorDetails) -> str:
    kind = item["type"]
    if kind == "missing":
        return REQUIRED
    if kind.startswith("int_"):
        return "A valid integer is required."
    if kind == "string_pattern_mismatch":
        return "Must be a valid UUID."
    return item["msg"].removeprefix("Value error, ")

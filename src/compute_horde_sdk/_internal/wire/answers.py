"""An answer that is not a success, told in our own errors."""

import datetime as dt
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from compute_horde.protocol.problems import Problem
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeAuthenticationError,
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeTimeoutError,
    ComputeHordeValidationError,
    ComputeHordeValidatorNotConnectedError,
)
from compute_horde_sdk._internal.wire.server_clock import date_of, read_date

M = TypeVar("M", bound=BaseModel)

SHOWN_CHARS = 300
CLOCKS_APART_S = 30.0
NO_VALIDATOR = "Could not select Validator"

ARGUMENT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "target_validator_hotkey": "compute_horde_validator_hotkey",
        "download_time_limit": "download_time_limit_sec",
        "execution_time_limit": "execution_time_limit_sec",
        "streaming_start_time_limit": "streaming_start_time_limit_sec",
        "upload_time_limit": "upload_time_limit_sec",
        "volumes": "input_volumes",
        "uploads": "output_volumes",
        "tag": "job_queue",
        "queue_time_limit": "queue_time_limit_sec",
        "retry_backoff": "retry_backoff_sec",
    }
)
"""Names on the wire to names of ``create_job``, where they differ."""


class Confirmation(BaseModel):
    """An answer that only says that something was done."""

    message: str = ""


def parse_answer(model: type[M], response: httpx.Response) -> M:
    """Read a successful answer.

    :raises ComputeHordeResponseError: it is not what the facilitator promises.
    """
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "answer"
        said = f"the facilitator's answer is malformed: {where}: {first['msg']}"
        raise malformed(said, response.status_code) from None


def malformed(said: str, status_code: int | None = None) -> ComputeHordeResponseError:
    """For an answer that no facilitator would give."""
    return ComputeHordeResponseError(
        said,
        code="malformed_response",
        status_code=status_code,
        hint="Check that facilitator_url is a Compute Horde facilitator.",
    )


def error_of(response: httpx.Response) -> ComputeHordeError:
    """The error that a refused request amounts to."""
    body = _json(response)
    status, text = response.status_code, _text(body) or response.text[:SHOWN_CHARS].strip()
    if problem := Problem.from_context(body if isinstance(body, dict) else None, text):
        return _of_problem(problem, status)
    if status in (401, 403):
        return ComputeHordeAuthenticationError(f"the facilitator refused the credentials: {text or status}")
    if status == 404:
        return ComputeHordeNotFoundError(text or "the facilitator knows no such thing")
    if status in (400, 422):
        return _of_bad_request(response, body, text)
    return _of_status(status, text)


def _of_bad_request(response: httpx.Response, body: Any, text: str) -> ComputeHordeError:
    if NO_VALIDATOR in text:
        return ComputeHordeValidatorNotConnectedError("the target validator is not connected to the facilitator")
    if isinstance(body, dict) and "ignature" in str(body.get("error", "")):
        return ComputeHordeAuthenticationError(
            f"the facilitator refused the signature: {text}", code="signature_refused", hint=_clock_hint(response)
        )
    if isinstance(body, dict) and body and "error" not in body and "detail" not in body:
        name = str(next(iter(body)))
        field = ARGUMENT_NAMES.get(name, name)
        message = _text(body[next(iter(body))]) or "is not valid"
        return ComputeHordeValidationError(f"the facilitator refused {field}: {message}", field=field)
    return ComputeHordeResponseError(
        f"the facilitator refused: {text}", status_code=response.status_code, code="refused"
    )


def _clock_hint(response: httpx.Response) -> str | None:
    """What to do when the two clocks differ so far that it explains a refused signature; None when they do not."""
    theirs = date_of(response)
    apart = (dt.datetime.now(dt.UTC) - theirs).total_seconds() if theirs else 0.0
    if abs(apart) < CLOCKS_APART_S:
        return None
    side = "ahead of" if apart > 0 else "behind"
    return f"This machine's clock is {abs(apart):.0f} s {side} the facilitator's: set it right."


def _of_status(status: int, text: str) -> ComputeHordeError:
    said = f"the facilitator answered {status}" + (f": {text}" if text else "")
    if status == 413:
        return ComputeHordeResponseError(
            said,
            status_code=status,
            code="request_too_large",
            hint="Send large inputs as HTTPInputVolume or HuggingfaceInputVolume.",
        )
    if status == 429:
        return ComputeHordeResponseError(
            said, status_code=status, code="rate_limited", retryable=True, hint="Wait, then try again."
        )
    if status >= 500:
        return ComputeHordeResponseError(
            said, status_code=status, code="facilitator_failed", retryable=True, hint="Try again later."
        )
    return ComputeHordeResponseError(said, status_code=status)


def _of_problem(problem: Problem, status: int) -> ComputeHordeError:
    if status == 404:
        return ComputeHordeNotFoundError(problem.message, code=problem.code, hint=problem.hint)
    if status in (401, 403):
        return ComputeHordeAuthenticationError(problem.message, code=problem.code, hint=problem.hint or None)
    return ComputeHordeResponseError(
        problem.message,
        status_code=status,
        code=problem.code,
        hint=problem.hint,
        retryable=problem.retryable,
        stage=problem.stage,
        fault=problem.fault,
    )


def of_transport(error: Exception) -> ComputeHordeConnectionError:
    """httpx's own errors in ours."""
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return ComputeHordeTimeoutError(f"the facilitator did not answer in time: {said}")
    return ComputeHordeConnectionError(f"the request to the facilitator failed: {said}")


def client_closed() -> ComputeHordeConnectionError:
    """For what goes on when the client was closed."""
    return ComputeHordeConnectionError("the client was closed", code="client_closed", hint="", retryable=False)


def retry_after_s(response: httpx.Response) -> float | None:
    """Seconds that the answer's ``Retry-After`` asks for; None when there is none or it is unreadable."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = read_date(value)
    except ValueError:
        return None
    return max(0.0, (moment - (date_of(response) or dt.datetime.now(dt.UTC))).total_seconds())


def _json(response: httpx.Response) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str:
    """The sentences inside an error body, whatever its nesting."""
    if isinstance(value, str):
        return value[:SHOWN_CHARS]
    if isinstance(value, list):
        return "; ".join(filter(None, map(_text, value[:5])))[:SHOWN_CHARS]
    if isinstance(value, dict):
        for key in ("detail", "error", "message", "msg"):
            if isinstance(value.get(key), str | list):
                more = value.get("details")
                return _text([value[key], more] if isinstance(more, str) else value[key])
        return "; ".join(f"{key}: {_text(inner)}" for key, inner in list(value.items())[:5])[:SHOWN_CHARS]
    return ""

"""Asking a validator that is connected to another replica: one request over HTTP, answered by that one."""

from collections.abc import Callable
from typing import Annotated, Protocol

import httpx
import structlog
from pydantic import Field, TypeAdapter

from compute_horde.facilitator.registry import LiveLink
from compute_horde.protocol.base import MalformedFrame, parse_frame
from compute_horde.protocol.control import (
    LOGS_HOLD_SECONDS,
    MAX_LOGS_FRAME_BYTES,
    V0JobLogsRequest,
    V0JobLogsResponse,
)
from compute_horde.protocol.facilitator_validator import V0ExplainJobRequest, V0ExplainJobResponse

log = structlog.get_logger(__name__)
PATH = "/replica/v0/questions/"
ANSWER_SECONDS = LOGS_HOLD_SECONDS + 10
CONNECT_SECONDS = 3

QUESTION: TypeAdapter[V0JobLogsRequest | V0ExplainJobRequest] = TypeAdapter(
    Annotated[V0JobLogsRequest | V0ExplainJobRequest, Field(discriminator="message_type")]
)
_ANSWER: TypeAdapter[V0JobLogsResponse | V0ExplainJobResponse] = TypeAdapter(
    Annotated[V0JobLogsResponse | V0ExplainJobResponse, Field(discriminator="message_type")]
)


class Replicas(Protocol):
    """The other replicas."""

    async def ask(
        self, link: LiveLink, request: V0JobLogsRequest | V0ExplainJobRequest
    ) -> V0JobLogsResponse | V0ExplainJobResponse | None:
        """The validator's answer; None: there is none. Never raises. A replica that is asked asks no other."""
        ...

    async def close(self) -> None: ...


class HttpReplicas:
    """``authorization``: makes the header that shows the secret which all replicas share."""

    def __init__(
        self, authorization: Callable[[], str], transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        limits = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._http = httpx.AsyncClient(transport=transport, timeout=limits, trust_env=False)
        self._authorization = authorization

    async def ask(
        self, link: LiveLink, request: V0JobLogsRequest | V0ExplainJobRequest
    ) -> V0JobLogsResponse | V0ExplainJobResponse | None:
        url = f"{link.replica_url.rstrip('/')}{PATH}{link.id}/"
        headers = {"Authorization": self._authorization(), "Content-Type": "application/json"}
        try:
            answer = await self._http.post(url, content=request.to_frame(), headers=headers)
            if answer.status_code != httpx.codes.OK or len(answer.content) > MAX_LOGS_FRAME_BYTES:
                log.warning("a replica does not answer", url=link.replica_url, status=answer.status_code)
                return None
            return parse_frame(_ANSWER, answer.content)
        except (httpx.HTTPError, httpx.InvalidURL, MalformedFrame) as error:
            log.warning("a replica does not answer", url=link.replica_url, error=type(error).__name__)
            return None

    async def close(self) -> None:
        await self._http.aclose()

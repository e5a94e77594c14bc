"""The facilitator over HTTP: token, tries, streams. The one place that knows httpx's errors."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel

from compute_horde.protocol.extensions import HTTP_EXTENSIONS, Extension, announced, announcement
from compute_horde.protocol.signing import Signer
from compute_horde_sdk._internal.exceptions import ComputeHordeError
from compute_horde_sdk._internal.sharing import Shared
from compute_horde_sdk._internal.wire.answers import (
    client_closed,
    error_of,
    of_transport,
    parse_answer,
    retry_after_s,
)
from compute_horde_sdk._internal.wire.body import read_whole
from compute_horde_sdk._internal.wire.login import log_in
from compute_horde_sdk._internal.wire.server_clock import ServerClock
from compute_horde_sdk._internal.wiring import REDIAL_CAP_S, Wiring

M = TypeVar("M", bound=BaseModel)

MAX_RETRY_AFTER_S = 60.0
MAX_CALLS = 64
"""Requests under way at a time, streams not counted; the others wait their turn."""

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
STREAM_TIMEOUT = httpx.Timeout(None, connect=5.0)
REALM_HEADERS = {"Realm": "mainnet", "SubnetID": "12"}
UNHEARD_PROXY = frozenset({502, 504})
"""Answers of a proxy, which cannot know what the facilitator did with the request."""

FAILED = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)
_NOT_DELIVERED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.WriteError,
    httpx.WriteTimeout,
)


class ElsewhereError(httpx.TransportError):
    """A redirect that leads away from the facilitator, and was not followed."""


_HOPELESS = (httpx.TooManyRedirects, httpx.UnsupportedProtocol, httpx.InvalidURL, ElsewhereError)


@dataclass(frozen=True)
class Request:
    """``repeatable``: sent again it does no harm, whether or not the first one arrived."""

    method: str
    path: str
    params: Mapping[str, str | int | list[str]] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True


@dataclass(frozen=True)
class Answer:
    """``lost``: an earlier try may have been carried out, too, its answer lost."""

    response: httpx.Response
    lost: bool = False


class AnswerLost(Exception):  # noqa: N818 - reads as what happened
    """Nobody knows whether the facilitator carried the request out. ``error``: the last that was heard."""

    def __init__(self, error: ComputeHordeError) -> None:
        super().__init__(str(error))
        self.error = error


class Facilitator:
    """One user's conversation with one facilitator. ``root``: without a trailing slash.

    Usable from one event loop after another, as several ``asyncio.run`` calls do; from one at a time.
    """

    def __init__(self, root: str, hotkey: Signer, wiring: Wiring) -> None:
        self.clock = ServerClock(wiring)
        self._root = root
        self._hotkey = hotkey
        self._wiring = wiring
        self._token: str | None = None
        self._extensions: frozenset[Extension] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: httpx.AsyncClient | None = None
        self._closed = False

    async def call(self, model: type[M], request: Request) -> M:
        """One authenticated call, logged in as needed.

        :raises ComputeHordeError: a subclass for what went wrong; nothing of httpx or pydantic.
        """
        try:
            answer = await self.exchange(request)
        except AnswerLost as lost:
            raise lost.error from lost.error.__cause__
        if not answer.response.is_success:
            raise error_of(answer.response)
        return parse_answer(model, answer.response)

    async def exchange(self, request: Request) -> Answer:
        """Send an authenticated request; a refused token is renewed and the same bytes are sent once more.

        :returns: the final answer, whatever its status.
        :raises AnswerLost: it may have been carried out.
        :raises ComputeHordeError: it was not.
        """
        token = await self.token()
        answer = await self.send(_authorized(request, token))
        if answer.response.status_code != 401:
            return answer
        token = await self.token(refused=token)
        again = await self.send(_authorized(request, token))
        return Answer(again.response, answer.lost or again.lost)

    async def send(self, request: Request) -> Answer:
        """Send a request as it is, again and again while that makes sense. Raises as :meth:`exchange` does."""
        began, waited, attempt, lost = self._wiring.clock(), 0.0, 0, False
        while True:
            attempt += 1
            pause = self._wiring.backoff(attempt)
            spent = max(self._wiring.clock() - began, waited)
            try:
                response = await self._try(request)
            except FAILED as error:
                failure = of_transport(error)
                pause = min(pause, REDIAL_CAP_S)
                lost = lost or not isinstance(error, _NOT_DELIVERED)
                tired = spent + pause > self._wiring.retry_s or isinstance(error, _HOPELESS)
                if tired or (lost and not request.repeatable):
                    raise (AnswerLost(failure) if lost else failure) from error
            else:
                asked = retry_after_s(response) or 0.0
                if not _worth_another(response):
                    return Answer(response, lost)
                lost = lost or response.status_code in UNHEARD_PROXY
                tired = spent + pause > self._wiring.retry_s or asked > MAX_RETRY_AFTER_S
                if lost and (tired or not request.repeatable):
                    raise AnswerLost(error_of(response))
                if tired:
                    return Answer(response)
                pause = max(pause, asked)
            waited += pause
            await self._wiring.sleep(pause)

    @asynccontextmanager
    async def stream(self, path: str, last_event_id: str) -> AsyncIterator[httpx.Response]:
        """An open event stream, whatever its status; only its headers have been read.

        httpx's errors and TimeoutError pass through: the reader of the stream tells them from its own.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        token = await self.token()
        response = await self._open(path, headers | _bearer(token))
        try:
            if response.status_code == 401:
                await response.aclose()
                token = await self.token(refused=token)
                response = await self._open(path, headers | _bearer(token))
            yield response
        finally:
            await response.aclose()

    async def extensions(self) -> frozenset[Extension]:
        """What the facilitator announced; logs in when nothing was heard of it yet."""
        if self._extensions is None:
            await self.token(refused=self._token)
        return self._extensions or frozenset()

    @property
    def known_extensions(self) -> frozenset[Extension] | None:
        """What it announced last; None when nothing was heard of it yet."""
        return self._extensions

    async def token(self, refused: str | None = None) -> str:
        """The token; a new one when there is none, or the one in hand is the ``refused`` one.

        Everyone who needs a new one at the same time waits for one login.
        """
        self._client()
        if refused is not None and self._token == refused:
            self._token = None
        while self._token is None:
            await self._login()
        return self._token

    async def authenticate(self) -> None:
        """Log in now, even with a token in hand.

        :raises ComputeHordeAuthenticationError: refused.
        """
        await self.token(refused=self._token)

    async def aclose(self) -> None:
        """Close the connections. What is under way, and every later call, ends with ``client_closed``."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.aclose()

    async def _try(self, request: Request) -> httpx.Response:
        headers = dict(request.headers)
        if request.content is not None:
            headers["Content-Type"] = "application/json"
        async with self._turn(), asyncio.timeout(self._wiring.request_s):
            session = self._client()  # it may have been closed while this waited
            made = session.build_request(
                request.method,
                self._root + request.path,
                params=request.params,
                content=request.content,
                headers=headers,
            )
            response = await read_whole(await session.send(made, stream=True), self._wiring.max_answer_bytes)
        self._hear(response)
        return response

    def _hear(self, response: httpx.Response) -> None:
        found = announced(response.headers)
        if found or response.is_success:  # a proxy's error page tells nothing of the facilitator behind it
            self._extensions = found
        self.clock.hear(response)

    def _turn(self) -> asyncio.Semaphore:
        self._client()
        return self._turns

    async def _open(self, path: str, headers: Mapping[str, str]) -> httpx.Response:
        session = self._client()
        request = session.build_request("GET", self._root + path, headers=headers, timeout=STREAM_TIMEOUT)
        async with asyncio.timeout(self._wiring.stream_open_s):
            return await session.send(request, stream=True)

    async def _log_in(self) -> None:
        self._token = await log_in(self._hotkey, self._send_plain)

    async def _send_plain(self, method: str, path: str, content: bytes | None) -> httpx.Response:
        """A request without a token. Raises ComputeHordeError."""
        try:
            return (await self.send(Request(method, path, content=content))).response
        except AnswerLost as lost:
            raise lost.error from lost.error.__cause__

    def _client(self) -> httpx.AsyncClient:
        if self._closed:
            raise client_closed()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._session = loop, None
            self._turns = asyncio.Semaphore(MAX_CALLS)
            self._login = Shared(self._log_in)
        if self._session is None:
            self._session = httpx.AsyncClient(
                transport=self._wiring.transport,
                headers={**REALM_HEADERS, **announcement(HTTP_EXTENSIONS)},
                timeout=TIMEOUT,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                follow_redirects=True,
                event_hooks={"response": [_stay_there]},
                verify=_trusted(self._root),
            )
        return self._session


async def _stay_there(response: httpx.Response) -> None:
    """Redirects are followed on the facilitator's own host: signatures are for nobody else to see.

    :raises ElsewhereError: it leads to another host, or from https to http.
    """
    if not response.has_redirect_location:
        return
    here = response.request.url
    there = here.join(response.headers["Location"])
    if there.host != here.host or (here.scheme == "https" and there.scheme == "http"):
        await response.aclose()
        raise ElsewhereError(f"it redirects to another place, {there.scheme}://{there.netloc.decode()[:200]}")


def _worth_another(response: httpx.Response) -> bool:
    return response.status_code == 429 or (response.status_code >= 500 and response.status_code != 501)


def _trusted(root: str) -> ssl.SSLContext | bool:
    """Whose certificates count. Plain HTTP on this machine needs none, and reading them takes 20 ms."""
    parts = urlsplit(root)
    if parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody
    return True


def _authorized(request: Request, token: str) -> Request:
    return replace(request, headers={**request.headers, **_bearer(token)})


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}

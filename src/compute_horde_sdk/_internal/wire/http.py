"""The facilitator over HTTP: login, token, retries. The one place that knows httpx's errors."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel

from compute_horde.protocol.extensions import HTTP_EXTENSIONS, Extension, announced, announcement
from compute_horde.protocol.sdk_facilitator import LoginRequest, LoginResponse, NonceResponse
from compute_horde.protocol.signing import Signer, sign_bytes
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeAuthenticationError,
    ComputeHordeResponseError,
)
from compute_horde_sdk._internal.wire.answers import error_of, of_transport, parse_answer, retry_after_s
from compute_horde_sdk._internal.wiring import Wiring

M = TypeVar("M", bound=BaseModel)

MAX_ATTEMPTS = 5
MAX_RETRY_AFTER_S = 60.0
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
REALM_HEADERS = {"Realm": "mainnet", "SubnetID": "12"}

_FAILED = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)
_NOT_DELIVERED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.WriteError,
    httpx.WriteTimeout,
)


class Facilitator:
    """One user's conversation with one facilitator. ``root``: without a trailing slash.

    Usable from one event loop after another, as several ``asyncio.run`` calls do; from one at a time.
    """

    def __init__(self, root: str, hotkey: Signer, wiring: Wiring) -> None:
        self._root = root
        self._hotkey = hotkey
        self._wiring = wiring
        self._token: str | None = None
        self._extensions: frozenset[Extension] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: httpx.AsyncClient | None = None
        self._login_lock = asyncio.Lock()

    async def call(
        self,
        model: type[M],
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> M:
        """One authenticated call, logged in as needed; a refused token is renewed and the call sent once more.

        :raises ComputeHordeError: a subclass for what went wrong; nothing of httpx or pydantic.
        """
        token = await self._current_token()
        for renewed in (False, True):
            response = await self._send(
                method, path, params=params, content=content, headers={**(headers or {}), **_bearer(token)}
            )
            if response.status_code != 401 or renewed:
                break
            token = await self._current_token(refused=token)
        if not response.is_success:
            raise error_of(response)
        return parse_answer(model, response)

    @asynccontextmanager
    async def stream(self, path: str, last_event_id: str) -> AsyncIterator[httpx.Response]:
        """An open event stream, whatever its status; only its headers have been read.

        httpx's errors pass through: the reader of the stream tells them from its own.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        token = await self._current_token()
        response = await self._open(path, headers | _bearer(token))
        if response.status_code == 401:
            await response.aclose()
            token = await self._current_token(refused=token)
            response = await self._open(path, headers | _bearer(token))
        try:
            yield response
        finally:
            await response.aclose()

    async def extensions(self) -> frozenset[Extension]:
        """What the facilitator announced; logs in when nothing was heard of it yet."""
        if self._extensions is None:
            await self._current_token()
        return self._extensions or frozenset()

    async def authenticate(self) -> None:
        """Log in now, even with a token in hand.

        :raises ComputeHordeAuthenticationError: refused.
        """
        await self._current_token(refused=self._token)

    async def aclose(self) -> None:
        """Close the connections; the next call opens new ones."""
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.aclose()

    async def _open(self, path: str, headers: Mapping[str, str]) -> httpx.Response:
        session = self._client()
        request = session.build_request(
            "GET", self._root + path, headers=dict(headers), timeout=httpx.Timeout(60.0, connect=5.0)
        )
        async with asyncio.timeout(self._wiring.stream_open_s):
            return await session.send(request, stream=True)

    async def _current_token(self, refused: str | None = None) -> str:
        """The token; a new one when there is none, or the one in hand is the ``refused`` one."""
        self._client()
        async with self._login_lock:
            if self._token is None or self._token == refused:
                self._token = await self._log_in()
            return self._token

    async def _log_in(self) -> str:
        response = await self._try_login()
        if response.status_code == 400 and "nonce" in response.text.lower():
            response = await self._try_login()  # a retried login may have used the nonce up
        if response.is_success:
            return _checked(parse_answer(LoginResponse, response).token)
        error = error_of(response)
        if response.status_code in (400, 401, 403):
            raise ComputeHordeAuthenticationError(
                f"the facilitator refused the login of {self._hotkey.ss58_address}: {error.message}"
            )
        raise error

    async def _try_login(self) -> httpx.Response:
        answer = await self._send("GET", "/auth/nonce")
        if not answer.is_success:
            raise error_of(answer)
        nonce = parse_answer(NonceResponse, answer).nonce
        with signing_errors():
            signature = sign_bytes(self._hotkey, nonce.encode()).hex()
        login = LoginRequest(hotkey=self._hotkey.ss58_address, signature=signature, nonce=nonce)
        return await self._send("POST", "/auth/login", content=login.model_dump_json().encode())

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request, sent again with the same bytes while it makes sense. Any final answer is returned."""
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if content is not None else {})}
        for attempt in range(1, MAX_ATTEMPTS + 1):
            pause = self._wiring.backoff(attempt)
            try:
                response = await self._client().request(
                    method, self._root + path, params=params, content=content, headers=sent
                )
            except _FAILED as error:
                again = isinstance(error, _NOT_DELIVERED) or method == "GET"
                if attempt == MAX_ATTEMPTS or not again:
                    raise of_transport(error) from error
            else:
                self._extensions = announced(response.headers)
                asked = retry_after_s(response) or 0.0
                again = response.status_code == 429 or (
                    response.status_code >= 500 and response.status_code != 501
                )
                if not again or attempt == MAX_ATTEMPTS or asked > MAX_RETRY_AFTER_S:
                    return response
                pause = max(pause, asked)
            await self._wiring.sleep(pause)
        raise AssertionError("unreachable")  # pragma: no cover - the last attempt returns or raises

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            if self._loop is not loop:
                self._login_lock = asyncio.Lock()
            self._loop = loop
            self._session = httpx.AsyncClient(
                transport=self._wiring.transport,
                headers={**REALM_HEADERS, **announcement(HTTP_EXTENSIONS)},
                timeout=TIMEOUT,
                follow_redirects=True,
                verify=_trusted(self._root),
            )
        return self._session


def _trusted(root: str) -> ssl.SSLContext | bool:
    """Whose certificates count. Plain HTTP on this machine needs none, and reading them takes 20 ms."""
    parts = urlsplit(root)
    if parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody
    return True


@contextmanager
def signing_errors() -> Iterator[None]:
    """What a key raises while signing (locked, a public key only), in our own words.

    :raises ComputeHordeAuthenticationError: instead of anything else.
    """
    try:
        yield
    except Exception as error:
        raise ComputeHordeAuthenticationError(
            f"the hotkey could not sign: {error}",
            code="signing_failed",
            hint="Use a hotkey with its private key, unlocked.",
        ) from error


def _checked(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable():
        raise ComputeHordeResponseError("the facilitator's token is malformed", code="malformed_response")
    return token


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}

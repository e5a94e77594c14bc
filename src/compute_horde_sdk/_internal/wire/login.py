"""The login: a nonce, signed (PROTOCOL.md 2.3)."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import httpx

from compute_horde.protocol.sdk_facilitator import LoginRequest, LoginResponse, NonceResponse
from compute_horde.protocol.signing import Signer, sign_bytes
from compute_horde_sdk._internal.exceptions import ComputeHordeAuthenticationError, ComputeHordeResponseError
from compute_horde_sdk._internal.wire.answers import error_of, parse_answer

Send = Callable[[str, str, bytes | None], Awaitable[httpx.Response]]
"""Method, path and body to the final answer. Raises ComputeHordeError."""


async def log_in(hotkey: Signer, send: Send) -> str:
    """A new token.

    :raises ComputeHordeAuthenticationError: refused.
    :raises ComputeHordeError: the facilitator cannot be reached, or makes no sense.
    """
    response = await _try_login(hotkey, send)
    if response.status_code == 400 and "nonce" in response.text.lower():
        response = await _try_login(hotkey, send)  # a retried login may have used the nonce up
    if response.is_success:
        return _checked(parse_answer(LoginResponse, response).token)
    error = error_of(response)
    if response.status_code in (400, 401, 403):
        raise ComputeHordeAuthenticationError(
            f"the facilitator refused the login of {hotkey.ss58_address}: {error.message}"
        )
    raise error


async def _try_login(hotkey: Signer, send: Send) -> httpx.Response:
    answer = await send("GET", "/auth/nonce", None)
    if not answer.is_success:
        raise error_of(answer)
    nonce = parse_answer(NonceResponse, answer).nonce
    with signing_errors():
        signature = sign_bytes(hotkey, nonce.encode()).hex()
    login = LoginRequest(hotkey=hotkey.ss58_address, signature=signature, nonce=nonce)
    return await send("POST", "/auth/login", login.model_dump_json().encode())


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

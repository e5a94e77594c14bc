"""Nonces and tokens: what the facilitator signs with its own secret (sections 2.3 and 2.4). No I/O."""

import base64
import hashlib
import hmac
import secrets
from typing import Any

import jwt

from compute_horde.facilitator.errors import unauthorized

ALGORITHM = "HS256"


class NonceInvalid(ValueError):  # noqa: N818 - the domain's word
    """Not a nonce of this facilitator."""


class NonceExpired(ValueError):  # noqa: N818 - the domain's word
    """A nonce of this facilitator from too long ago."""


def _key(secret: str, purpose: str) -> bytes:
    return hashlib.blake2b(secret.encode(), digest_size=32, person=purpose.encode()).digest()


class Nonces:
    """Makes and checks nonces, ``<random>:<seconds>:<signature>``; opaque to clients. Nothing is stored here."""

    def __init__(self, secret: str, lifetime_s: int) -> None:
        self._key, self._lifetime = _key(secret, "nonce"), lifetime_s

    def make(self, now: float) -> str:
        text = f"{secrets.token_hex(16)}:{int(now):x}"
        return f"{text}:{self._sign(text)}"

    def expiry(self, nonce: str, now: float) -> float:
        """When the nonce ends. :raises NonceInvalid: :raises NonceExpired:"""
        text, _, signature = nonce.rpartition(":")
        if not text or not hmac.compare_digest(signature.encode(), self._sign(text).encode()):
            raise NonceInvalid
        expires = int(text.partition(":")[2], 16) + self._lifetime
        if now >= expires:
            raise NonceExpired
        return float(expires)

    def _sign(self, text: str) -> str:
        made = hmac.new(self._key, text.encode("utf-8", "surrogatepass"), "sha256").digest()
        return base64.urlsafe_b64encode(made).decode().rstrip("=")


class Tokens:
    """Makes and reads JWTs with the claims ``sub``, ``iat`` and ``exp``. Those of one purpose fit no other."""

    def __init__(self, secret: str, lifetime_s: int, purpose: str = "jwt") -> None:
        self._key, self._lifetime = _key(secret, purpose), lifetime_s

    def make(self, hotkey: str, now: float) -> str:
        claims = {"sub": hotkey, "iat": int(now), "exp": int(now) + self._lifetime}
        return jwt.encode(claims, self._key, ALGORITHM)

    def hotkey_and_expiry(self, authorization: str | None, now: float) -> tuple[str, float]:
        """Who is logged in, and until when. :raises ApiError: 401, by the rows of section 2.4 in order."""
        claims = self._claims(_bearer(authorization))
        expires = claims.get("exp")
        if not isinstance(expires, int):
            raise unauthorized("Token decode error.")
        if now >= expires:
            raise unauthorized("Token expired.")
        subject = claims.get("sub")
        if not subject or not isinstance(subject, str):
            raise unauthorized("Token missing subject.")
        return subject, float(expires)

    def _claims(self, token: str) -> dict[str, Any]:
        options: Any = {"verify_exp": False, "verify_iat": False, "verify_sub": False, "verify_aud": False}
        try:
            claims: dict[str, Any] = jwt.decode(token, self._key, [ALGORITHM], options=options)
        except jwt.PyJWTError:
            raise unauthorized("Token decode error.") from None
        return claims


def _bearer(authorization: str | None) -> str:
    parts = (authorization or "").split(" ")
    if parts[0].lower() != "bearer":
        raise unauthorized("Authentication credentials were not provided.")
    if len(parts) != 2 or not parts[1]:
        raise unauthorized("Invalid token header format.")
    if not parts[1].isascii():
        raise unauthorized("Invalid token header encoding.")
    return parts[1]

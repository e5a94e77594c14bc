"""Logging in: a nonce, signed by the hotkey, for a token (section 2.3); and who a token stands for (2.4)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compute_horde.chain.keys import public_key_of
from compute_horde.chain.port import Chain
from compute_horde.facilitator.errors import ApiError, unauthorized
from compute_horde.facilitator.records import SpentNonces
from compute_horde.facilitator.tokens import NonceExpired, NonceInvalid, Nonces, Tokens
from compute_horde.protocol.signing import SIGNATURE_BYTES, Verifier
from compute_horde.telemetry.facilitator import FacilitatorMetrics
from compute_horde.telemetry.vocabulary import Refusal

EXPIRED = "Nonce expired or not found"


@dataclass(frozen=True)
class Session:
    """A user who is logged in until ``expires`` (UNIX seconds)."""

    hotkey: str
    expires: float


class Login:
    """The order of the checks is the protocol's: presence, nonce, signature, whitelist."""

    def __init__(
        self,
        chain: Chain,
        verifier: Verifier,
        nonces: Nonces,
        tokens: Tokens,
        spent: SpentNonces,
        now: Callable[[], float],
        metrics: FacilitatorMetrics,
    ) -> None:
        self._chain, self._verifier, self._now, self._metrics = chain, verifier, now, metrics
        self._nonces, self._tokens, self._spent = nonces, tokens, spent

    def nonce(self) -> str:
        return self._nonces.make(self._now())

    async def token(self, body: Mapping[str, Any]) -> str:
        """:raises ApiError: 400 or 401 with the body of section 2.3."""
        try:
            token = await self._token(body)
        except ApiError:
            self._metrics.login(False)
            raise
        self._metrics.login(True)
        return token

    async def _token(self, body: Mapping[str, Any]) -> str:
        hotkey, signature, nonce = (_text(body, name) for name in ("hotkey", "signature", "nonce"))
        now = self._now()
        expires = self._expiry(nonce, now)
        _check_address(hotkey)
        if not self._verifier(hotkey, nonce.encode("utf-8", "surrogatepass"), _signature(signature)):
            raise ApiError(401, {"error": "Invalid signature"}, refusal=Refusal.SIGNATURE)
        if not await self._spent.spend(nonce, expires):
            raise _refused(EXPIRED)
        if not self.is_allowed(hotkey):
            raise _refused("Hotkey not allowed", Refusal.FORBIDDEN)
        return self._tokens.make(hotkey, now)

    def session(self, authorization: str | None) -> Session:
        """Who sent this ``Authorization`` header. :raises ApiError: 401."""
        hotkey, expires = self._tokens.hotkey_and_expiry(authorization, self._now())
        if not self.is_allowed(hotkey):
            raise unauthorized("Unauthorized hotkey.", Refusal.FORBIDDEN)
        return Session(hotkey, expires)

    def is_good(self, session: Session) -> bool:
        """Whether a session that began earlier still holds."""
        return self._now() < session.expires and self.is_allowed(session.hotkey)

    def is_allowed(self, hotkey: str) -> bool:
        return hotkey in self._chain.directory().users

    def _expiry(self, nonce: str, now: float) -> float:
        try:
            return self._nonces.expiry(nonce, now)
        except NonceInvalid:
            raise _refused("Invalid nonce") from None
        except NonceExpired:
            raise _refused(EXPIRED) from None


def _refused(error: str, refusal: Refusal = Refusal.LOGIN) -> ApiError:
    return ApiError(400, {"error": error}, refusal=refusal)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not value or not isinstance(value, str):
        raise _refused(f"Missing {name}")
    return value


def _check_address(hotkey: str) -> None:
    try:
        public_key_of(hotkey)
    except ValueError:
        raise _refused(EXPIRED) from None


def _signature(text: str) -> bytes:
    """Bare hex; anything else is answered as the existing facilitator does."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raise _refused(EXPIRED) from None
    if len(raw) != SIGNATURE_BYTES:
        raise ApiError(401, {"error": "Invalid signature"}, refusal=Refusal.SIGNATURE)
    return raw

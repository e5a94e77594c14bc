"""Who may speak to this miner as a validator (sections 6.1 and 6.2). Pure."""

from dataclasses import dataclass

from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.signing import Verifier
from compute_horde.protocol.validator_miner import (
    AUTH_MAX_AGE_SECONDS,
    GenericError,
    UnauthorizedError,
    ValidatorAuthForMiner,
)
from compute_horde.telemetry import vocabulary

MAX_AHEAD_SECONDS = 60
_OUT_OF_TIME = (vocabulary.Refusal.STALE, vocabulary.Refusal.LOGIN)


@dataclass(frozen=True)
class Refusal:
    """Why a validator is turned away: for newer peers a code, for older ones a text (G46).

    ``counted``: as which kind of refusal.
    """

    code: str
    details: str
    counted: vocabulary.Refusal

    def messages(self) -> tuple[UnauthorizedError, GenericError]:
        return UnauthorizedError(code=self.code, details=self.details), GenericError(details=self.details)


def unknown_validator(validator: str) -> Refusal:
    return Refusal("UNKNOWN_VALIDATOR", f"Unknown validator: {validator}", vocabulary.Refusal.FORBIDDEN)


def not_authenticated(validator: str, why: str, counted: vocabulary.Refusal) -> Refusal:
    code = "TOKEN_TOO_OLD" if counted in _OUT_OF_TIME else "UNKNOWN_VALIDATOR"
    return Refusal(code, f"Validator {validator} not authenticated due to: {why}", counted)


@dataclass(frozen=True)
class Gate:
    """``miner_hotkey`` is 48 zeros on a trusted miner, which knows only ``trusted_for``."""

    miner_hotkey: str
    verifier: Verifier
    trusted_for: str | None = None

    @classmethod
    def trusted(cls, validator: str, verifier: Verifier) -> "Gate":
        return cls(TRUSTED_MINER_HOTKEY, verifier, validator)

    def knows(self, validator: str, validators: frozenset[str]) -> bool:
        return validator == self.trusted_for if self.trusted_for else validator in validators

    def check(self, validator: str, auth: ValidatorAuthForMiner, now: float) -> Refusal | None:
        """None lets the validator whose address is in the URL in."""
        if auth.timestamp < now - AUTH_MAX_AGE_SECONDS:
            return not_authenticated(validator, "msg too old", vocabulary.Refusal.STALE)
        if auth.timestamp > now + MAX_AHEAD_SECONDS:
            return not_authenticated(validator, "msg too far in the future", vocabulary.Refusal.STALE)
        if why := self._for_others(validator, auth):
            return not_authenticated(validator, why, vocabulary.Refusal.FORBIDDEN)
        if not auth.is_signed(self.verifier):
            return not_authenticated(validator, "Signature mismatches", vocabulary.Refusal.SIGNATURE)
        return None

    def _for_others(self, validator: str, auth: ValidatorAuthForMiner) -> str | None:
        if auth.miner_hotkey != self.miner_hotkey:
            return f"wrong miner hotkey ({self.miner_hotkey}!={auth.miner_hotkey[:64]})"
        if auth.validator_hotkey != validator:
            return f"wrong validator hotkey ({validator}!={auth.validator_hotkey[:64]})"
        return None

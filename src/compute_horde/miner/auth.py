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

MAX_AHEAD_SECONDS = 60


@dataclass(frozen=True)
class Refusal:
    """Why a validator is turned away: for newer peers a code, for older ones a text (G46)."""

    code: str
    details: str

    def messages(self) -> tuple[UnauthorizedError, GenericError]:
        return UnauthorizedError(code=self.code, details=self.details), GenericError(details=self.details)


def unknown_validator(validator: str) -> Refusal:
    return Refusal("UNKNOWN_VALIDATOR", f"Unknown validator: {validator}")


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
        why = self._wrong(validator, auth, now)
        if why is None:
            return None
        code = "TOKEN_TOO_OLD" if why.startswith("msg too") else "UNKNOWN_VALIDATOR"
        return Refusal(code, f"Validator {validator} not authenticated due to: {why}")

    def _wrong(self, validator: str, auth: ValidatorAuthForMiner, now: float) -> str | None:
        if auth.timestamp < now - AUTH_MAX_AGE_SECONDS:
            return "msg too old"
        if auth.timestamp > now + MAX_AHEAD_SECONDS:
            return "msg too far in the future"
        if auth.miner_hotkey != self.miner_hotkey:
            return f"wrong miner hotkey ({self.miner_hotkey}!={auth.miner_hotkey[:64]})"
        if auth.validator_hotkey != validator:
            return f"wrong validator hotkey ({validator}!={auth.validator_hotkey[:64]})"
        return None if auth.is_signed(self.verifier) else "Signature mismatches"

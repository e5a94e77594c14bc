"""The two model bases, and how a text frame becomes a message and back."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

M = TypeVar("M")

TRUSTED_MINER_HOTKEY = "0" * 48
"""The trusted miner has no key on chain; frames, receipts and rows carry this in its place (section 1)."""

MAX_MINER_FRAME_BYTES = 50 * 1024 * 1024
"""Largest frame on the validator-miner and miner-executor links (section 6.1)."""

DEFAULT_MAX_FRAME_BYTES = 1024 * 1024
"""Largest frame that a validator of the existing network can receive from its facilitator (section 2.1)."""


class Message(BaseModel):
    """A frozen model that ignores keys it does not know, as every peer of the network does."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def to_frame(self) -> str:
        """The text frame: compact JSON, declaration order, nulls kept."""
        return self.model_dump_json()


class StrictMessage(Message):
    """A message whose unknown keys are an error (the facilitator-validator link, section 5.2)."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def without_unset(dumped: dict[str, Any], *names: str) -> dict[str, Any]:
    """A dumped message without those of these members that are null: older peers then see none of them."""
    return {key: value for key, value in dumped.items() if value is not None or key not in names}


class MalformedFrame(ValueError):  # noqa: N818 - reads as the thing that arrived
    """A text frame that is not a message of the expected union. ``errors`` has pydantic's details."""

    def __init__(self, errors: list[ErrorDetails]) -> None:
        self.errors = errors
        first = errors[0] if errors else None
        where = ".".join(str(part) for part in first["loc"]) if first else ""
        super().__init__(f"{where or 'frame'}: {first['msg'] if first else 'malformed'}")

    def for_peer(self) -> list[dict[str, Any]]:
        """The errors without the offending input (which may hold a secret), ready for JSON."""
        return [{"type": e["type"], "loc": [str(part) for part in e["loc"]], "msg": e["msg"]} for e in self.errors]


def parse_frame(adapter: TypeAdapter[M], frame: str | bytes) -> M:
    """Parse one frame as a member of a union.

    :raises MalformedFrame: not JSON, not in the union, or a field is wrong.
    """
    try:
        return adapter.validate_json(frame)
    except ValidationError as error:
        raise MalformedFrame(error.errors(include_url=False, include_context=False)) from None

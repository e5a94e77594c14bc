"""What a validator says with its handshake (section 5.1, and ours). Names of headers are case-insensitive."""

from collections.abc import Mapping

from compute_horde.protocol.base import DEFAULT_MAX_FRAME_BYTES
from compute_horde.protocol.facilitator_validator import (
    HEADER_INSTANCE,
    HEADER_MAX_FRAME,
    HEADER_RUNNER_VERSION,
    HEADER_VERSION,
)

MAX_INSTANCE_CHARS = 64


def frame_limit(headers: Mapping[str, str]) -> int:
    """What the validator says it can receive; the existing network's limit where it says nothing (G20)."""
    told = _told(headers, HEADER_MAX_FRAME)
    return int(told) if told.isascii() and told.isdigit() and int(told) > 0 else DEFAULT_MAX_FRAME_BYTES


def instance(headers: Mapping[str, str]) -> str | None:
    """The name of the validator's database; None where it gives none that can be kept."""
    told = _told(headers, HEADER_INSTANCE)
    return told if told.isprintable() and 0 < len(told) <= MAX_INSTANCE_CHARS else None


def versions(headers: Mapping[str, str]) -> dict[str, str]:
    """For the log."""
    return {
        "version": (_told(headers, HEADER_VERSION) or "unknown")[:64],
        "runner_version": (_told(headers, HEADER_RUNNER_VERSION) or "unknown")[:64],
    }


def _told(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), "")

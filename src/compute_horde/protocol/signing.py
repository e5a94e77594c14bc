"""Request signing: the bytes that are signed, the headers and the object that carry a signature (section 3)."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from pydantic import Field, JsonValue, field_validator

from compute_horde.protocol.base import StrictMessage

HEADER_TYPE = "X-CH-Signature-Type"
HEADER_SIGNATORY = "X-CH-Signatory"
HEADER_TIMESTAMP = "X-CH-Timestamp-NS"
HEADER_SIGNATURE = "X-CH-Signature"
HEADER_SCOPE = "X-CH-Signature-Scope"
SIGNATURE_TYPE = "bittensor"
SIGNATURE_BYTES = 64


@runtime_checkable
class Signer(Protocol):
    """A hotkey that can sign: keys of ``bittensor_wallet`` and of ``bittensor`` both fit."""

    @property
    def ss58_address(self) -> str: ...

    def sign(self, data: bytes, /) -> Any:
        """sr25519 signature of ``data``: 64 bytes, or the same as hex text."""


Verifier = Callable[[str, bytes, bytes], bool]
"""``(ss58, data, signature) -> valid``. Never raises: a key or signature that is no such thing is not valid."""


class SignatureScope(StrEnum):
    SIGNED_FIELDS = "SignedFields"
    FULL_REQUEST = "FullRequest"


class InvalidSignature(ValueError):  # noqa: N818 - the domain's word
    """A signature that is missing, malformed, too old or wrong. The text says which."""


class Signature(StrictMessage):
    """A signature with what is needed to check it, as it travels in WebSocket messages."""

    signature_type: str = SIGNATURE_TYPE
    signatory: str
    timestamp_ns: int = Field(ge=0, lt=2**64)
    signature: str
    signature_scope: SignatureScope = SignatureScope.SIGNED_FIELDS

    @field_validator("signature")
    @classmethod
    def _is_base64(cls, value: str) -> str:
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("signature must be standard base64") from None
        return value

    @property
    def raw(self) -> bytes:
        return base64.b64decode(self.signature)

    def to_headers(self) -> dict[str, str]:
        return {
            HEADER_TYPE: self.signature_type,
            HEADER_SIGNATORY: self.signatory,
            HEADER_TIMESTAMP: str(self.timestamp_ns),
            HEADER_SIGNATURE: self.signature,
            HEADER_SCOPE: self.signature_scope.value,
        }

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> "Signature":
        """Read the ``X-CH-*`` headers; names are case-insensitive.

        :raises InvalidSignature: one of the four mandatory ones is missing or unreadable.
        """
        lowered = {name.lower(): value for name, value in headers.items()}
        values = {}
        for name in (HEADER_TYPE, HEADER_SIGNATORY, HEADER_TIMESTAMP, HEADER_SIGNATURE):
            if not (value := lowered.get(name.lower())):
                raise InvalidSignature(f"{name} header is missing")
            values[name] = value
        try:
            return cls(
                signature_type=values[HEADER_TYPE],
                signatory=values[HEADER_SIGNATORY],
                timestamp_ns=int(values[HEADER_TIMESTAMP]),
                signature=values[HEADER_SIGNATURE],
                signature_scope=SignatureScope(lowered.get(HEADER_SCOPE.lower()) or SignatureScope.SIGNED_FIELDS),
            )
        except ValueError as error:
            raise InvalidSignature(f"a signature header is malformed: {error}") from None


class SignedFields(StrictMessage):
    """Layout L3: what a user signs of a job. Declaration order is part of the signed bytes (section 3.3)."""

    executor_class: str
    docker_image: str
    args: list[str]
    env: dict[str, str]
    use_gpu: bool
    artifacts_dir: str
    on_trusted_miner: bool
    download_time_limit: int
    execution_time_limit: int
    upload_time_limit: int
    streaming_start_time_limit: int
    streaming_details: JsonValue
    volumes: list[JsonValue]
    uploads: list[JsonValue]

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "SignedFields":
        """Rebuild the signed fields from a raw HTTP body; volumes and uploads are taken verbatim."""
        details = body.get("streaming_details")
        return cls(
            executor_class=str(body.get("executor_class")),
            docker_image=body.get("docker_image") or "",
            args=body.get("args") or [],
            env=body.get("env") or {},
            use_gpu=bool(body.get("use_gpu", False)),
            artifacts_dir=body.get("artifacts_dir") or "",
            on_trusted_miner=bool(body.get("on_trusted_miner", False)),
            download_time_limit=body.get("download_time_limit") or 0,
            execution_time_limit=body.get("execution_time_limit") or 0,
            upload_time_limit=body.get("upload_time_limit") or 0,
            streaming_start_time_limit=body.get("streaming_start_time_limit") or 0,
            streaming_details=(
                {"public_key": details.get("public_key"), "executor_ip": None} if details is not None else None
            ),
            volumes=body.get("volumes") or [],
            uploads=body.get("uploads") or [],
        )

    def payload(self) -> str:
        """The text whose JSON encoding is hashed."""
        return self.model_dump_json()


def canonical_text(value: JsonValue) -> str:
    """JSON with sorted keys, ``", "`` and ``": "``, non-ASCII escaped."""
    return json.dumps(value, sort_keys=True)


def digest(timestamp_ns: int, payload: JsonValue) -> bytes:
    """The 64 bytes that are signed: BLAKE2b-512 over time and payload (section 3.2).

    A ``str`` payload is JSON-encoded once more: that is how the network's peers do it.
    """
    return hashlib.blake2b(
        timestamp_ns.to_bytes(8, "big") + canonical_text(payload).encode(), digest_size=SIGNATURE_BYTES
    ).digest()


def sign_bytes(signer: Signer, data: bytes) -> bytes:
    """Sign raw bytes; key libraries that answer in hex are understood."""
    made = signer.sign(data)
    return bytes.fromhex(made.removeprefix("0x")) if isinstance(made, str) else bytes(made)


def sign_payload(signer: Signer, payload: JsonValue, scope: SignatureScope, timestamp_ns: int) -> Signature:
    """Sign a request's payload text or object at a given time (UNIX nanoseconds)."""
    return Signature(
        signatory=signer.ss58_address,
        timestamp_ns=timestamp_ns,
        signature=base64.b64encode(sign_bytes(signer, digest(timestamp_ns, payload))).decode(),
        signature_scope=scope,
    )


def verify_payload(signature: Signature, payload: JsonValue, verifier: Verifier) -> bool:
    """Whether ``signature`` is its signatory's over ``payload``. Says nothing of age or of permission."""
    return verifier(signature.signatory, digest(signature.timestamp_ns, payload), signature.raw)


def check_age(signature: Signature, now_ns: int, max_age_s: float, max_ahead_s: float = 60) -> None:
    """Refuse a signature from too long ago, or from the future.

    :raises InvalidSignature: says how old it is and what the limit is.
    """
    age_s = (now_ns - signature.timestamp_ns) / 1e9
    if age_s > max_age_s:
        raise InvalidSignature(
            f"signature is {age_s:.0f} s old, the limit is {max_age_s:.0f} s; check the clock and sign again"
        )
    if age_s < -max_ahead_s:
        raise InvalidSignature(f"signature is {-age_s:.0f} s in the future; check the clock")


def hex_signature(signer: Signer, data: bytes) -> str:
    """``0x`` + hex: how WebSocket messages and receipts carry a signature."""
    return "0x" + sign_bytes(signer, data).hex()


def verify_hex(verifier: Verifier, ss58: str, data: bytes, signature: str) -> bool:
    """Check a ``0x`` + hex signature; text that is no hex is simply not valid."""
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
    except ValueError:
        return False
    return verifier(ss58, data, raw)

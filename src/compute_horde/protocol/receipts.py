"""Receipts: what validator and miner both sign about a job (section 9)."""

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter

from compute_horde.protocol.base import Message, parse_frame
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.signing import Signer, Verifier, canonical_text, hex_signature, verify_hex

MAX_TTL_SECONDS = 30 * 24 * 3600
PAGE_SECONDS = 300
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def _in_this_century(value: dt.datetime) -> dt.datetime:
    if not 2000 <= value.year < 2100:
        raise ValueError("year must be between 2000 and 2099")
    return value


Moment = Annotated[AwareDatetime, AfterValidator(_in_this_century)]
Ttl = Annotated[int, Field(ge=0, le=MAX_TTL_SECONDS)]


class _Payload(Message):
    job_uuid: str = Field(pattern=UUID_PATTERN)
    miner_hotkey: str
    validator_hotkey: str
    timestamp: Moment

    def signed_bytes(self) -> bytes:
        """What both sides sign: UTF-8 of the JSON with sorted keys (section 9.2)."""
        return canonical_text(self.model_dump(mode="json")).encode()

    def sign(self, signer: Signer) -> str:
        return hex_signature(signer, self.signed_bytes())


class JobStartedPayload(_Payload):
    """``ttl``: seconds the miner's reservation is good for."""

    receipt_type: Literal["JobStartedReceipt"] = "JobStartedReceipt"
    executor_class: ExecutorClass
    is_organic: bool = True
    ttl: Ttl


class JobAcceptedPayload(_Payload):
    """``ttl``: seconds the accepted job may take in all."""

    receipt_type: Literal["JobAcceptedReceipt"] = "JobAcceptedReceipt"
    time_accepted: Moment
    ttl: Ttl


class JobFinishedPayload(_Payload):
    """``score_str``: cost in executor-seconds, six decimals; ``0.000000`` on failure."""

    receipt_type: Literal["JobFinishedReceipt"] = "JobFinishedReceipt"
    time_started: Moment
    time_took_us: int = Field(ge=0, le=31_536_000_000_000)
    score_str: str = Field(max_length=256, pattern=r"^[0-9]+(\.[0-9]+)?$")
    block_numbers: list[Annotated[int, Field(ge=0, le=2**32 - 1)]] = Field(default_factory=list, max_length=10_000)


ReceiptPayload = Annotated[
    JobStartedPayload | JobAcceptedPayload | JobFinishedPayload, Field(discriminator="receipt_type")
]


class Receipt(Message):
    """A payload with both signatures, as pages and excuses carry it."""

    payload: ReceiptPayload
    validator_signature: str
    miner_signature: str

    def is_signed_by_both(self, verifier: Verifier) -> bool:
        data = self.payload.signed_bytes()
        return verify_hex(verifier, self.payload.miner_hotkey, data, self.miner_signature) and verify_hex(
            verifier, self.payload.validator_hotkey, data, self.validator_signature
        )


RECEIPT: TypeAdapter[Receipt] = TypeAdapter(Receipt)
RECEIPT_PAYLOAD: TypeAdapter[Any] = TypeAdapter(ReceiptPayload)


def page_at(unix_seconds: float) -> int:
    """The page that a receipt stored at this moment belongs to (section 9.4)."""
    return int(unix_seconds // PAGE_SECONDS)


def page_line(receipt: Receipt) -> str:
    """One line of a page, newline included: payload key order is common fields, type, kind fields."""
    return receipt.model_dump_json() + "\n"


def parse_line(line: str) -> Receipt:
    """:raises MalformedFrame: not a receipt within its bounds."""
    return parse_frame(RECEIPT, line)

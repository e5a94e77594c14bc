"""The receipts that the validator issues for a job (section 9.1)."""

import datetime as dt

from compute_horde.lifecycle.deadlines import Limits
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.receipts import (
    MAX_TTL_SECONDS,
    JobAcceptedPayload,
    JobFinishedPayload,
    JobStartedPayload,
)
from compute_horde.protocol.signing import Signer
from compute_horde.validator.rows import IssuedReceipt

Payload = JobStartedPayload | JobAcceptedPayload | JobFinishedPayload
MAX_TOOK_US = 31_536_000_000_000


class ReceiptBook:
    """Writes and signs the three receipts of one job."""

    def __init__(
        self, signer: Signer, job_uuid: str, miner_hotkey: str, executor_class: ExecutorClass, limits: Limits
    ) -> None:
        self._signer, self._job_uuid, self._miner = signer, job_uuid, miner_hotkey
        self._class, self._limits = executor_class, limits

    def started(self, now: float) -> JobStartedPayload:
        """``ttl``: the reservation limit."""
        return JobStartedPayload(
            job_uuid=self._job_uuid,
            miner_hotkey=self._miner,
            validator_hotkey=self._signer.ss58_address,
            timestamp=moment(now),
            executor_class=self._class,
            ttl=_ttl(self._limits.reservation),
        )

    def accepted(self, now: float) -> JobAcceptedPayload:
        """``ttl``: readiness limit and all five timing values."""
        limits = self._limits
        return JobAcceptedPayload(
            job_uuid=self._job_uuid,
            miner_hotkey=self._miner,
            validator_hotkey=self._signer.ss58_address,
            timestamp=moment(now),
            time_accepted=moment(now),
            ttl=_ttl(limits.overall(self._class) - limits.reservation),
        )

    def finished(self, now: float, started_at: float, *, paid: bool) -> JobFinishedPayload:
        """``paid``: the job succeeded on a miner of the subnet."""
        took_us = round((now - started_at) * 1_000_000)
        return JobFinishedPayload(
            job_uuid=self._job_uuid,
            miner_hotkey=self._miner,
            validator_hotkey=self._signer.ss58_address,
            timestamp=moment(now),
            time_started=moment(started_at),
            time_took_us=min(max(took_us, 0), MAX_TOOK_US),
            score_str=f"{max(self._limits.cost, 0) if paid else 0:.6f}",
        )

    def issue(self, payload: Payload) -> IssuedReceipt:
        """The payload signed, as it is kept and sent."""
        return IssuedReceipt(
            job_uuid=payload.job_uuid,
            kind=payload.receipt_type,
            payload=payload.model_dump_json(),
            signature=payload.sign(self._signer),
        )


def moment(unix_seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_seconds, dt.UTC)


def _ttl(seconds: float) -> int:
    return min(max(int(seconds), 0), MAX_TTL_SECONDS)

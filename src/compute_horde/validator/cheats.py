"""Cheat reports (section 5.4; G1, G2): checked against what the validator itself knows."""

import time

import structlog

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.facilitator_validator import V0JobCheated
from compute_horde.protocol.signing import Verifier, canonical_text, verify_payload
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.telemetry.vocabulary import Refusal
from compute_horde.validator.intake import Gate
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.rows import Incident, Job
from compute_horde.validator.store import Store

log = structlog.get_logger(__name__)

CODE = "job_cheated"


def report_is_signed(report: V0JobCheated, verifier: Verifier) -> bool:
    """Both digests are right: clients sign the text of the payload, the network's validators its object (G1)."""
    payload = report.signed_payload()
    return verify_payload(report.signature, canonical_text(payload), verifier) or verify_payload(
        report.signature, payload, verifier
    )


class CheatDesk:
    """Takes cheat reports. One that does not hold is logged and dropped; one that comes again changes nothing."""

    def __init__(
        self, gate: Gate, verifier: Verifier, store: Store, reputation: Reputation, metrics: ValidatorMetrics
    ) -> None:
        self._gate, self._verifier, self._store, self._reputation = gate, verifier, store, reputation
        self._metrics = metrics

    async def take(self, report: V0JobCheated) -> None:
        job = await self._store.job(report.job_uuid)
        trusted = await self._store.job(report.trusted_job_uuid)
        if objection := self._objection(report, job, trusted):
            why, counted = objection
            self._metrics.refused(counted)
            log.warning("cheat report dropped", job=report.job_uuid[:100], why=why)
            return
        if job is None or job.miner is None:
            return
        incident = Incident(job.miner.hotkey, job.uuid, CODE, time.time())
        if await self._store.mark_cheated(job.uuid, incident):
            self._reputation.note(incident)
            log.warning("job was cheated", job=job.uuid, miner=job.miner.hotkey)

    def _objection(self, report: V0JobCheated, job: Job | None, trusted: Job | None) -> tuple[str, Refusal] | None:
        if not self._gate.may_sign(report.signature.signatory):
            return "its signatory is not accepted here", Refusal.FORBIDDEN
        if not report_is_signed(report, self._verifier):
            return "its signature is wrong", Refusal.SIGNATURE
        if job is None or trusted is None:
            return "it names a job that is not known here", Refusal.UNKNOWN_JOB
        if job.request.signature.signatory != report.signature.signatory:
            return "it is about another user's job", Refusal.NOT_OURS
        if job.state is not JobState.COMPLETED or job.miner is None:
            return "the job has not completed", Refusal.OTHER
        if job.request.on_trusted_miner or not trusted.request.on_trusted_miner:
            return "it does not compare a job with one on the trusted miner", Refusal.OTHER
        return ("the job is already marked", Refusal.REPEATED) if job.cheated else None

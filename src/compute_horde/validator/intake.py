"""Whether a job request is let in (section 5.4): who signed it, what, when, and whether it was sent before."""

import re
import time
from collections.abc import Callable

import structlog

from compute_horde.chain.port import Chain
from compute_horde.protocol.facilitator_validator import V2JobRequest
from compute_horde.protocol.receipts import UUID_PATTERN
from compute_horde.protocol.signing import InvalidSignature, Signature, Verifier, check_age, digest, verify_payload
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.telemetry.vocabulary import Refusal
from compute_horde.validator import outcomes
from compute_horde.validator.journal import Journal
from compute_horde.validator.rows import Admission, Job

log = structlog.get_logger(__name__)


class NotLetIn(InvalidSignature):
    """``counted``: as which kind of refusal."""

    def __init__(self, why: str, counted: Refusal) -> None:
        super().__init__(why)
        self.counted = counted


class Gate:
    """Checks signatures against the validator's own key and the operator's list of signers."""

    def __init__(self, own_ss58: str, chain: Chain, verifier: Verifier, max_age_s: float) -> None:
        self._own, self._chain, self._verifier, self._max_age = own_ss58, chain, verifier, max_age_s

    def may_sign(self, ss58: str) -> bool:
        return ss58 == self._own or ss58 in self._chain.directory().signers

    def check(self, request: V2JobRequest, now_ns: int) -> str:
        """The key under which this signature is remembered against replay.

        The key is over the signed digest, not over the signature, since one text can be signed in many ways.

        :raises NotLetIn: the text is for the user.
        """
        signature = request.signature
        if not signature.raw:
            raise NotLetIn("Signature is empty", Refusal.SIGNATURE)
        if not self.may_sign(signature.signatory):
            raise NotLetIn(f"Signatory {signature.signatory} is not in validator whitelist", Refusal.FORBIDDEN)
        payload = request.signed_fields().payload()
        if not verify_payload(signature, payload, self._verifier):
            raise NotLetIn("Bad signature", Refusal.SIGNATURE)
        try:
            check_age(signature, now_ns, self._max_age)
        except InvalidSignature as error:
            raise NotLetIn(str(error), Refusal.STALE) from None
        return replay_key(signature, payload)


def replay_key(signature: Signature, payload: str) -> str:
    """What two uses of one signature have in common."""
    return digest(signature.timestamp_ns, f"{signature.signatory}:{payload}").hex()


class Intake:
    """Takes job requests from the facilitator; those that are in order go to ``start``."""

    def __init__(
        self, gate: Gate, journal: Journal, start: Callable[[Job], None], metrics: ValidatorMetrics
    ) -> None:
        self._gate, self._journal, self._start, self._metrics = gate, journal, start, metrics

    async def take(self, request: V2JobRequest) -> None:
        """Idempotent: a request that comes again is ignored."""
        if re.fullmatch(UUID_PATTERN, request.uuid) is None:
            self._metrics.refused(Refusal.MALFORMED)
            log.warning("job request with a malformed uuid dropped", uuid=request.uuid[:100])
            return
        try:
            key = self._gate.check(request, time.time_ns())
        except NotLetIn as error:
            await self._refuse(request, str(error), error.counted)
            return
        admission, job = await self._journal.admit(request, key)
        if admission is Admission.NEW:
            self._start(job)
        elif admission is Admission.REPLAYED:
            await self._refuse(request, "Signature was already used for another job", Refusal.REPEATED)
        else:
            self._metrics.refused(Refusal.REPEATED)
            log.info("job request repeated, ignored", job=request.uuid)

    async def _refuse(self, request: V2JobRequest, why: str, counted: Refusal) -> None:
        self._metrics.refused(counted)
        log.warning("job refused", job=request.uuid, why=why)
        await self._journal.turn_away(request, outcomes.invalid_signature(why))

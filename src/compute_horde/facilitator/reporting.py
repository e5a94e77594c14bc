"""Cheat reports and feedback (sections 2.8 and 2.9)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from pydantic import ValidationError

from compute_horde.facilitator.admission import SignatureRules, admit_report, read_signature
from compute_horde.facilitator.errors import ApiError, invalid_fields, signature_invalid
from compute_horde.facilitator.records import Feedbacks, Reports
from compute_horde.facilitator.switchboard import Switchboard
from compute_horde.facilitator.topics import validator_topic
from compute_horde.facilitator.validators import Link, Outgoing
from compute_horde.protocol.facilitator_validator import V0JobCheated
from compute_horde.protocol.sdk_facilitator import CheatReport, Feedback
from compute_horde.protocol.signing import SignatureScope, canonical_text
from compute_horde.storage.bus import Bus
from compute_horde.telemetry.vocabulary import Refusal

log = structlog.get_logger(__name__)


class CheatReports:
    """Takes reports, and delivers each to the job's validator, now or when it is back."""

    def __init__(self, reports: Reports, board: Switchboard, bus: Bus, now: Callable[[], float]) -> None:
        self._reports, self._board, self._bus, self._now = reports, board, bus, now

    async def add(self, body: Mapping[str, Any], headers: Mapping[str, str], rules: SignatureRules) -> None:
        """:raises ApiError: 400 or 404 with the body of section 2.8."""
        try:
            report = CheatReport.model_validate(body)
        except ValidationError as error:
            raise invalid_fields(error) from None
        signature = read_signature(headers, SignatureScope.FULL_REQUEST)
        admit_report(body, signature, rules)
        message = V0JobCheated(signature=signature, **report.model_dump())
        if canonical_text(message.signed_payload()) != canonical_text(dict(body)):
            raise signature_invalid("sign and send exactly job_uuid, trusted_job_uuid and details (null included)")
        _check_carried(message)
        validator = await self._reports.own_job(report.job_uuid, rules.user, trusted=False)
        if validator is None:
            raise ApiError(404, {"error": "Job not found"})
        if await self._reports.own_job(report.trusted_job_uuid, rules.user, trusted=True) is None:
            raise ApiError(404, {"error": "Trusted job not found"})
        if not await self._reports.add(message, validator, self._now()):
            raise ApiError(400, {"error": "Cheat report already exists for this job"}, refusal=Refusal.REPEATED)
        log.info("cheat reported", job_uuid=report.job_uuid, validator=validator)
        if link := self._board.here(validator):
            self._push(link, report.job_uuid, message.to_frame())
        else:
            self._bus.notify(validator_topic(validator))

    async def hand_over(self, link: Link, *, is_new: bool) -> None:
        """Give a connection every report that was not yet sent, unless a newer one came since."""
        waiting = await self._reports.waiting(link.hotkey)
        if not waiting or not await self._is_newest(link):
            return
        for job_uuid, frame in waiting:
            self._push(link, job_uuid, frame)

    async def _is_newest(self, link: Link) -> bool:
        newest = next(iter(await self._board.live(link.hotkey)), None)
        return newest is None or newest.id == link.id

    def _push(self, link: Link, job_uuid: str, frame: str) -> None:
        if len(frame.encode()) > link.max_frame_bytes:
            log.warning("cheat report exceeds this connection's frame limit", job_uuid=job_uuid)
            return
        link.push_once(f"cheated:{job_uuid}", Outgoing(frame, self._delivery(job_uuid)))

    def _delivery(self, job_uuid: str) -> Callable[[], Awaitable[None]]:
        return lambda: self._reports.mark_delivered(job_uuid)


def _check_carried(message: V0JobCheated) -> None:
    """:raises ApiError: 400: the frame would not hold what was signed."""
    try:
        message.to_frame()
    except ValueError:
        raise ApiError(400, {"details": ["The text is not valid Unicode."]}) from None


class FeedbackBook:
    """One feedback a job, by its owner (G17)."""

    def __init__(self, feedbacks: Feedbacks, now: Callable[[], float]) -> None:
        self._feedbacks, self._now = feedbacks, now

    async def add(
        self, job_uuid: str, body: Mapping[str, Any], headers: Mapping[str, str], rules: SignatureRules
    ) -> Feedback:
        """:raises ApiError: 400, or 409 when there is one already."""
        try:
            feedback = Feedback.model_validate(body)
        except ValidationError as error:
            raise invalid_fields(error) from None
        admit_report(body, read_signature(headers, SignatureScope.FULL_REQUEST), rules)
        if not await self._feedbacks.add(job_uuid, feedback, self._now()):
            raise ApiError(409, {"detail": "Feedback already exists"})
        return feedback

    async def get(self, job_uuid: str) -> Feedback:
        """:raises ApiError: 404 when there is none."""
        feedback = await self._feedbacks.get(job_uuid)
        if feedback is None:
            raise ApiError(404, {"detail": "No Feedback matches the given query."})
        return feedback

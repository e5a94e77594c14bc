"""One user's conversation with one facilitator: the real :class:`~compute_horde_sdk._internal.port.Horde`."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from pydantic import JsonValue

from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.sdk_facilitator import CheatReport, Job, JobPage
from compute_horde.protocol.signing import SignatureScope, SignedFields, Signer, canonical_text, sign_payload
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeResponseError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.port import JobList, JobQuery, JobSnapshot, News, Order, OutputPiece
from compute_horde_sdk._internal.wire.answers import Confirmation
from compute_horde_sdk._internal.wire.events import EventHub
from compute_horde_sdk._internal.wire.http import Facilitator, signing_errors
from compute_horde_sdk._internal.wire.output import follow_output
from compute_horde_sdk._internal.wire.reading import list_of, snapshot_of
from compute_horde_sdk._internal.wire.request import encode_body, job_body
from compute_horde_sdk._internal.wiring import Wiring


class Session:
    """``root``: the facilitator's, without a trailing slash."""

    def __init__(self, root: str, hotkey: Signer, wiring: Wiring) -> None:
        self._hotkey, self._wiring = hotkey, wiring
        self._facilitator = Facilitator(root, hotkey, wiring)
        self._hub = EventHub(self._facilitator, wiring)

    @property
    def connected(self) -> bool:
        return self._hub.connected

    async def extensions(self) -> frozenset[Extension]:
        return await self._facilitator.extensions()

    async def authenticate(self) -> None:
        await self._facilitator.authenticate()

    async def create(self, order: Order) -> JobSnapshot:
        body = job_body(order)
        content = encode_body(body)
        headers = self._sign(SignedFields.from_body(body).payload(), SignatureScope.SIGNED_FIELDS)
        wire = await self._facilitator.call(Job, "POST", "/api/v1/job-docker/", content=content, headers=headers)
        return snapshot_of(wire)

    async def fetch(self, job_uuid: str) -> JobSnapshot:
        wire = await self._facilitator.call(Job, "GET", f"/api/v1/jobs/{job_uuid}/")
        if wire.uuid.lower() != job_uuid.lower():
            raise ComputeHordeResponseError(
                f"the facilitator answered with job {wire.uuid[:100]!r}, not {job_uuid}", code="malformed_response"
            )
        return snapshot_of(wire)

    async def list_jobs(self, query: JobQuery) -> JobList:
        page = await self._facilitator.call(JobPage, "GET", "/api/v1/jobs/", params=_parameters(query))
        return list_of(page)

    async def cancel(self, job_uuid: str) -> JobSnapshot:
        if Extension.CANCEL not in await self.extensions():
            raise ComputeHordeUnsupportedError(
                "the facilitator cannot cancel jobs", hint="The job ends by its time limits."
            )
        return snapshot_of(await self._facilitator.call(Job, "POST", f"/api/v1/jobs/{job_uuid}/cancel/"))

    async def report_cheat(self, job_uuid: str, trusted_job_uuid: str, details: JsonValue) -> str:
        report = CheatReport(job_uuid=job_uuid, trusted_job_uuid=trusted_job_uuid)
        body = {**report.model_dump(mode="json"), "details": details}
        try:
            text = canonical_text(body)
        except (TypeError, ValueError, RecursionError):
            raise ComputeHordeValidationError(
                "details must be something that JSON can hold", field="details"
            ) from None
        headers = self._sign(text, SignatureScope.FULL_REQUEST)
        answer = await self._facilitator.call(
            Confirmation, "POST", "/api/v1/cheated-job/", content=text.encode(), headers=headers
        )
        return answer.message

    def output(self, job_uuid: str) -> AsyncIterator[OutputPiece]:
        return follow_output(self._facilitator, self._wiring, job_uuid)

    def subscribe(self, job_uuid: str) -> AbstractAsyncContextManager[News]:
        return self._hub.subscribe(job_uuid)

    async def aclose(self) -> None:
        await self._hub.aclose()
        await self._facilitator.aclose()

    def _sign(self, payload: str, scope: SignatureScope) -> dict[str, str]:
        with signing_errors():
            return sign_payload(self._hotkey, payload, scope, self._wiring.now_ns()).to_headers()


def _parameters(query: JobQuery) -> dict[str, str | int]:
    """The query's part of the URL; what is not asked for is left out."""
    asked: dict[str, str | int] = {"page_size": query.page_size}
    if query.before is None:
        asked["page"] = query.page
    else:
        asked["before"] = query.before
    if query.queue is not None:
        asked["tag"] = query.queue
    if query.pending is not None:
        asked["pending"] = "true" if query.pending else "false"
    return asked

"""One user's conversation with one facilitator: the real :class:`~compute_horde_sdk._internal.port.Horde`."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from pydantic import JsonValue

from compute_horde.protocol.explanation import Explanation as WireExplanation
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.sdk_facilitator import CheatReport, Job, JobPage
from compute_horde.protocol.signing import SignatureScope, SignedFields, Signer, canonical_text, sign_payload
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeResponseError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.explanation import Explanation
from compute_horde_sdk._internal.port import JobList, JobQuery, JobSnapshot, News, Order, OutputPiece
from compute_horde_sdk._internal.specs.volumes import OutputVolume
from compute_horde_sdk._internal.wire.creating import Creator
from compute_horde_sdk._internal.wire.events import EventHub
from compute_horde_sdk._internal.wire.explaining import explanation_of
from compute_horde_sdk._internal.wire.http import Facilitator, Request
from compute_horde_sdk._internal.wire.listing import LIST_PATH, iterate, list_request
from compute_horde_sdk._internal.wire.login import signing_errors
from compute_horde_sdk._internal.wire.looking import Looker
from compute_horde_sdk._internal.wire.output import follow_output
from compute_horde_sdk._internal.wire.reading import list_of, snapshot_of
from compute_horde_sdk._internal.wire.repetition import repetition_body
from compute_horde_sdk._internal.wire.reporting import send_report
from compute_horde_sdk._internal.wire.request import encode_body, job_body
from compute_horde_sdk._internal.wire.wishes import WISHES, without_wishes
from compute_horde_sdk._internal.wiring import Wiring


class Session:
    """``root``: the facilitator's, without a trailing slash."""

    def __init__(self, root: str, hotkey: Signer, wiring: Wiring) -> None:
        self._hotkey, self._wiring = hotkey, wiring
        self._facilitator = Facilitator(root, hotkey, wiring)
        self._hub = EventHub(self._facilitator, wiring)
        self._creator = Creator(self._facilitator, wiring)
        self._looker = Looker(self.fetch, self._fetch_many, wiring)

    @property
    def connected(self) -> bool:
        return self._hub.connected

    async def extensions(self) -> frozenset[Extension]:
        return await self._facilitator.extensions()

    async def authenticate(self) -> None:
        await self._facilitator.authenticate()

    async def create(self, order: Order) -> JobSnapshot:
        body = job_body(order)
        if WISHES.intersection(body) and Extension.QUEUE not in await self.extensions():
            body = without_wishes(body, order.spec)
        return await self._create(body)

    async def repeat_on_trusted_miner(
        self, job: JobSnapshot, queue: str, uploads: Mapping[str, OutputVolume] | None
    ) -> JobSnapshot:
        return await self._create(repetition_body(job, queue, uploads))

    async def _create(self, body: dict[str, Any]) -> JobSnapshot:
        content = encode_body(body)
        headers = self._sign(SignedFields.from_body(body).payload(), SignatureScope.SIGNED_FIELDS)
        return snapshot_of(await self._creator.create(body, content, headers))

    async def fetch(self, job_uuid: str) -> JobSnapshot:
        return await self._about(job_uuid, Request("GET", f"/api/v1/jobs/{job_uuid}/"))

    async def list_jobs(self, query: JobQuery) -> JobList:
        return list_of(await self._facilitator.call(JobPage, list_request(query)))

    def iterate(self, queue: str | None, pending: bool | None) -> AsyncIterator[JobSnapshot]:
        return iterate(self._facilitator, queue, pending)

    async def look(self, job_uuid: str) -> JobSnapshot:
        return await self._looker.look(job_uuid)

    async def cancel(self, job_uuid: str) -> JobSnapshot:
        if Extension.CANCEL not in await self.extensions():
            raise ComputeHordeUnsupportedError(
                "the facilitator cannot cancel jobs", hint="The job ends by its time limits."
            )
        return await self._about(job_uuid, Request("POST", f"/api/v1/jobs/{job_uuid}/cancel/"))

    async def explain(self, job_uuid: str) -> Explanation:
        if Extension.EXPLAIN not in await self.extensions():
            raise ComputeHordeUnsupportedError(
                "the facilitator cannot explain jobs", hint="Look at the job's status_history and error."
            )
        request = Request("GET", f"/api/v1/jobs/{job_uuid}/explanation/")
        wire = await self._facilitator.call(WireExplanation, request)
        _check_about(job_uuid, wire.job_uuid)
        return explanation_of(wire)

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
        return await send_report(self._facilitator, text.encode(), headers)

    def output(self, job_uuid: str) -> AsyncGenerator[OutputPiece, None]:
        return follow_output(self._facilitator, self._wiring, job_uuid)

    def subscribe(self, job_uuid: str) -> AbstractAsyncContextManager[News]:
        return self._hub.subscribe(job_uuid)

    async def aclose(self) -> None:
        await self._hub.aclose()
        await self._facilitator.aclose()

    async def _about(self, job_uuid: str, request: Request) -> JobSnapshot:
        """The job that the request is about, and no other."""
        wire = await self._facilitator.call(Job, request)
        _check_about(job_uuid, wire.uuid)
        return snapshot_of(wire)

    async def _fetch_many(self, job_uuids: list[str]) -> list[JobSnapshot]:
        asked: dict[str, str | int | list[str]] = {"page": 1, "page_size": len(job_uuids), "uuid": job_uuids}
        page = await self._facilitator.call(JobPage, Request("GET", LIST_PATH, params=asked))
        return list(map(snapshot_of, page.results))

    def _sign(self, payload: str, scope: SignatureScope) -> dict[str, str]:
        with signing_errors():
            return sign_payload(self._hotkey, payload, scope, self._wiring.now_ns()).to_headers()


def _check_about(wanted: str, found: str) -> None:
    if found.lower() != wanted.lower():
        raise ComputeHordeResponseError(
            f"the facilitator answered with job {found[:100]!r}, not {wanted}", code="malformed_response"
        )

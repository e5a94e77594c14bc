"""The jobs of the fake facilitator: created, linked, listed. No HTTP."""

import datetime as dt
import json
import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from compute_horde.protocol.extensions import HTTP_EXTENSIONS, Extension
from compute_horde.protocol.sdk_facilitator import Job, JobPage
from compute_horde.protocol.signing import Signature as WireSignature
from compute_horde.protocol.signing import SignatureScope, SignedFields, digest
from compute_horde_sdk._internal.wire.wishes import WISHES

START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
ENDED = frozenset({"completed", "rejected", "failed", "horde_failed", "cancelled"})


class Refused(Exception):  # noqa: N818 - reads as what happened to the request
    """``status`` and ``body`` of the answer."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


@dataclass
class FakeJobs:
    """``by_uuid``: in the order of creation, and so is ``created_at``, one second apart."""

    extensions: frozenset[Extension] = HTTP_EXTENSIONS
    by_uuid: dict[str, Job] = field(default_factory=dict)
    by_signature: dict[bytes, str] = field(default_factory=dict)
    created: int = 0

    def create(self, content: bytes, headers: Mapping[str, str]) -> tuple[Job, bool]:
        """The job, and whether it is a new one.

        :raises Refused: not signed by the fake's key, or a link that cannot be.
        """
        body = json.loads(content)
        signature = WireSignature.from_headers(headers)
        signed = digest(signature.timestamp_ns, SignedFields.from_body(body).payload())
        if signature.raw != signed or signature.signature_scope is not SignatureScope.SIGNED_FIELDS:
            raise Refused(400, {"error": "Invalid signature provided"})
        known = self.by_uuid.get(self.by_signature.get(signature.raw, ""))
        if known is not None and Extension.REPEATABLE_CREATE in self.extensions:
            return known, False
        if Extension.CROSS_VALIDATION not in self.extensions:
            body.pop("cross_validates", None)
            body.pop("run_cross_validation", None)
        if Extension.QUEUE not in self.extensions:
            body = {name: value for name, value in body.items() if name not in WISHES}
        job = self._stored(body)
        self.by_signature[signature.raw] = job.uuid
        return job, True

    def replace(self, job_uuid: str, **changes: Any) -> Job:
        """Change a job."""
        self.by_uuid[job_uuid] = self.by_uuid[job_uuid].model_copy(update=changes)
        return self.by_uuid[job_uuid]

    def page(self, params: httpx.QueryParams, url: str) -> JobPage:
        """What ``GET /api/v1/jobs/`` shows for this query.

        :raises Refused: there is no such page, or no such job to go on behind.
        """
        newest = [job for job in reversed(self.by_uuid.values()) if _matches(job, params)]
        size = int(params.get("page_size", 10))
        if Extension.QUEUES in self.extensions:
            if pending := params.get("pending"):
                newest = [job for job in newest if (job.status in ENDED) is (pending == "false")]
            if "before" in params:
                return self._behind(newest, params["before"], size, url)
        page = int(params.get("page", 1))
        shown = newest[(page - 1) * size : page * size]
        if not shown and page > 1:
            raise Refused(404, {"detail": "Invalid page."})
        more = f"{url}?page={page + 1}" if page * size < len(newest) else None
        return JobPage(count=len(newest), next=more, results=shown)

    def _behind(self, newest: list[Job], before: str, size: int, url: str) -> JobPage:
        count = len(newest)
        if before:
            if before not in self.by_uuid:
                raise Refused(400, {"before": ["No job of yours has this uuid."]})
            last = self.by_uuid[before].created_at
            newest = [job for job in newest if job.created_at < last]
        shown = newest[:size]
        more = f"{url}?before={shown[-1].uuid}" if len(newest) > size else None
        return JobPage(count=count, next=more, results=shown)

    def _stored(self, body: dict[str, Any]) -> Job:
        job_uuid = str(uuids.uuid4())
        if (original := body.get("cross_validates")) is not None:
            self._link(original, job_uuid)
        created_at = START + dt.timedelta(seconds=self.created)
        self.created += 1
        certificate = (body.get("streaming_details") or {}).get("public_key", "")
        job = Job.model_validate(
            {**body, "uuid": job_uuid, "created_at": created_at, "streaming_client_cert": certificate}
        )
        self.by_uuid[job_uuid] = job
        return job

    def _link(self, original: str, trusted: str) -> None:
        job = self.by_uuid.get(original)
        if job is None or job.on_trusted_miner:
            raise Refused(400, {"cross_validates": ["No job of yours that could be repeated."]})
        if job.trusted_job_uuid is not None:
            raise Refused(400, {"cross_validates": ["This job has been repeated already."]})
        self.replace(original, trusted_job_uuid=trusted)


def _matches(job: Job, params: httpx.QueryParams) -> bool:
    wanted = params.get_list("uuid")
    return (not wanted or job.uuid in wanted) and params.get("tag", job.tag) == job.tag

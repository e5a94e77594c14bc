"""A facilitator without sockets, for tests of the client and of programs that use it.

It checks logins and signatures like the real one, and does what a test tells it to: ``advance`` a job, ``drop``
the event stream, answer the next requests with prepared faults.
"""

import asyncio
import datetime as dt
import json
import uuid as uuids
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import JobStatus
from compute_horde.protocol.sdk_facilitator import Job, JobEvent, JobPage, StatusEntry
from compute_horde.protocol.signing import Signature as WireSignature
from compute_horde.protocol.signing import SignatureScope, SignedFields, digest, sign_bytes
from compute_horde_sdk._internal.client import ComputeHordeClient
from compute_horde_sdk._internal.wiring import Wiring

START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
Fault = httpx.Response | Exception


class FakeHotkey:
    """A key whose signature of some bytes is those bytes, cut or filled to 64."""

    ss58_address = "5FakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFak"

    def sign(self, data: bytes, /) -> bytes:
        return data[:64].ljust(64, b"\0")


@dataclass
class FakeFacilitator:
    """``pushes``: whether it has an event stream. ``faults``: what the next requests to a path get instead."""

    pushes: bool = True
    requests: list[httpx.Request] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    faults: dict[str, deque[Fault]] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)
    logins: int = 0
    expired: set[str] = field(default_factory=set)
    on_stream: Callable[[str], None] = lambda last_id: None
    hotkey: FakeHotkey = field(default_factory=FakeHotkey)

    def __post_init__(self) -> None:
        self._history: list[JobEvent] = []
        self._streams: list[asyncio.Queue[bytes | None]] = []

    def client(self, url: str = "http://horde.test", **wiring: Any) -> ComputeHordeClient:
        """A client that talks to this fake, and whose retries take no time."""
        made = replace(
            Wiring(transport=httpx.MockTransport(self.handle), sleep=self._sleep, jitter=lambda: 0.0), **wiring
        )
        kind = type("WiredClient", (ComputeHordeClient,), {"_wiring": made})
        client: ComputeHordeClient = kind(self.hotkey, "validator", facilitator_url=url)
        return client

    def fail(self, path: str, *faults: Fault) -> None:
        """Answer the next requests to ``path`` with these, one each."""
        self.faults.setdefault(path, deque()).extend(faults)

    def advance(self, job_uuid: str, status: str, metadata: dict[str, Any] | None = None, **changes: Any) -> None:
        """Record a status, and push it to every open stream."""
        job = self.jobs[job_uuid]
        entry = StatusEntry(
            status=JobStatus(status),
            metadata=StatusMetadata.model_validate(metadata or {}),
            created_at=START + dt.timedelta(seconds=len(job.status_history)),
        )
        history = [*job.status_history, entry]
        self.jobs[job_uuid] = job.model_copy(update={"status_history": history, "status": status, **changes})
        self._history.append(JobEvent(job_uuid=job_uuid, entry=entry))
        for stream in self._streams:
            stream.put_nowait(self._frame(len(self._history)))

    def drop(self) -> None:
        """Break every open stream off."""
        for stream in self._streams:
            stream.put_nowait(None)

    def push_bytes(self, raw: bytes) -> None:
        """Put raw bytes on every open stream."""
        for stream in self._streams:
            stream.put_nowait(raw)

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def sent(self, method: str, path: str) -> list[httpx.Request]:
        """The requests that came for this method and path."""
        return [one for one in self.requests if one.method == method and one.url.path == path]

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        path = request.url.path
        await asyncio.sleep(0)
        if queue := self.faults.get(path):
            fault = queue.popleft()
            if isinstance(fault, Exception):
                raise fault
            return fault
        if path == "/auth/nonce":
            return _json(200, {"nonce": f"nonce-{len(self.requests)}"})
        if path == "/auth/login":
            return self._login(json.loads(request.content))
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token.startswith("token-") or token in self.expired:
            return _json(401, {"detail": "Token expired."})
        return self._answer(request, path)

    def _answer(self, request: httpx.Request, path: str) -> httpx.Response:
        match (request.method, path.strip("/").split("/")):
            case ("POST", ["api", "v1", "job-docker"]):
                return self._create(request)
            case ("GET", ["api", "v1", "jobs"]):
                return self._list(request)
            case ("GET", ["api", "v1", "jobs", job_uuid]) if job_uuid in self.jobs:
                return _json(200, self.jobs[job_uuid].model_dump(mode="json"))
            case ("GET", ["api", "v1", "events"]) if self.pushes:
                last_id = request.headers.get("Last-Event-ID", "")
                self.on_stream(last_id)
                headers = {"Content-Type": "text/event-stream; charset=utf-8"}
                return httpx.Response(200, headers=headers, content=self._stream(last_id))
            case ("POST", ["api", "v1", "cheated-job"]):
                return _json(201, {"message": "Job reported as cheated"})
        return _json(404, {"detail": "No Job matches the given query."})

    def _login(self, body: dict[str, str]) -> httpx.Response:
        if bytes.fromhex(body["signature"]) != sign_bytes(self.hotkey, body["nonce"].encode()):
            return _json(401, {"error": "Invalid signature"})
        self.logins += 1
        return _json(200, {"token": f"token-{self.logins}"})

    def _create(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        signature = WireSignature.from_headers(request.headers)
        signed = digest(signature.timestamp_ns, SignedFields.from_body(body).payload())
        if signature.raw != signed or signature.signature_scope is not SignatureScope.SIGNED_FIELDS:
            return _json(400, {"error": "Invalid signature provided"})
        job_uuid = str(uuids.uuid4())
        self.jobs[job_uuid] = Job.model_validate({**body, "uuid": job_uuid, "created_at": START})
        self.advance(job_uuid, "sent")
        return _json(201, self.jobs[job_uuid].model_dump(mode="json"))

    def _list(self, request: httpx.Request) -> httpx.Response:
        page, size = int(request.url.params["page"]), int(request.url.params["page_size"])
        newest = list(reversed(self.jobs.values()))
        shown = newest[(page - 1) * size : page * size]
        if not shown and page > 1:
            return _json(404, {"detail": "Invalid page."})
        more = f"http://horde.test/api/v1/jobs/?page={page + 1}" if page * size < len(newest) else None
        return _json(200, JobPage(count=len(newest), next=more, results=shown).model_dump(mode="json"))

    async def _stream(self, last_id: str) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._streams.append(queue)
        try:
            yield b": hello\n\n"
            if last_id:
                for number in range(int(last_id) + 1, len(self._history) + 1):
                    yield self._frame(number)
            while (chunk := await queue.get()) is not None:
                yield chunk
        finally:
            self._streams.remove(queue)

    def _frame(self, number: int) -> bytes:
        return f"id: {number}\nevent: status\ndata: {self._history[number - 1].model_dump_json()}\n\n".encode()

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def _json(status: int, body: object) -> httpx.Response:
    return httpx.Response(status, json=body)

"""A facilitator without sockets, for tests of the client and of programs that use it.

It checks logins and signatures like the real one, and does what a test tells it to: ``advance`` a job, ``place``
and ``retry`` it, ``print`` in its name, ``drop`` the streams, answer the next requests with prepared faults.
"""

import asyncio
import datetime as dt
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import JobStatus
from compute_horde.protocol.explanation import Explanation
from compute_horde.protocol.extensions import HTTP_EXTENSIONS, Extension, announcement
from compute_horde.protocol.scheduling import QueuePlace
from compute_horde.protocol.sdk_facilitator import Job, JobEvent, JobQueueEvent, StatusEntry
from compute_horde.protocol.signing import sign_bytes
from compute_horde_sdk._internal.client import ComputeHordeClient
from compute_horde_sdk._internal.wire.fake_jobs import ENDED, START, FakeJobs, Refused
from compute_horde_sdk._internal.wire.fake_output import FakeOutput, FakeStream, end_frame
from compute_horde_sdk._internal.wire.session import Session
from compute_horde_sdk._internal.wiring import Wiring

Fault = httpx.Response | Exception
SSE = {"Content-Type": "text/event-stream; charset=utf-8"}


class FakeHotkey:
    """A key whose signature of some bytes is those bytes, cut or filled to 64."""

    ss58_address = "5FakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFak"

    def sign(self, data: bytes, /) -> bytes:
        return data[:64].ljust(64, b"\0")


@dataclass
class FakeFacilitator:
    """Offers all that ours does.

    * ``pushes``: False takes the event stream away
    * ``extensions``: what it announces and does; none is a facilitator of the existing network
    * ``faults``: what the next requests to a path get instead
    * ``lost``: what is raised in place of the next answers to a path, once the request was carried out
    * ``reports``: the bodies of the cheat reports
    * ``explanations``: by job; a job without one gets a plain one
    """

    pushes: bool = True
    extensions: frozenset[Extension] = HTTP_EXTENSIONS
    requests: list[httpx.Request] = field(default_factory=list)
    faults: dict[str, deque[Fault]] = field(default_factory=dict)
    lost: dict[str, deque[Exception]] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)
    logins: int = 0
    expired: set[str] = field(default_factory=set)
    on_stream: Callable[[str], None] = lambda last_id: None
    hotkey: FakeHotkey = field(default_factory=FakeHotkey)
    reports: list[dict[str, Any]] = field(default_factory=list)
    explanations: dict[str, Explanation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.pushes:
            self.extensions -= {Extension.EVENTS}
        self._jobs = FakeJobs()
        self._history: list[JobEvent] = []
        self._streams: list[asyncio.Queue[bytes | None]] = []
        self._outputs: dict[str, FakeOutput] = {}

    @property
    def jobs(self) -> dict[str, Job]:
        """All jobs by uuid, in the order of their creation."""
        return self._jobs.by_uuid

    def client(
        self,
        url: str = "http://horde.test",
        job_queue: str | None = None,
        client_options: dict[str, Any] | None = None,
        **wiring: Any,
    ) -> ComputeHordeClient:
        """A client that talks to this fake, and whose retries take no time."""
        made = self.wiring(**wiring)
        kind = type("WiredClient", (ComputeHordeClient,), {"_wiring": made})
        client: ComputeHordeClient = kind(
            self.hotkey, "validator", job_queue, facilitator_url=url, **(client_options or {})
        )
        return client

    def horde(self, **wiring: Any) -> Session:
        """The wire side alone of such a client."""
        return Session("http://horde.test", self.hotkey, self.wiring(**wiring))

    def wiring(self, **changes: Any) -> Wiring:
        """No sockets, and pauses that take no time."""
        made = Wiring(transport=httpx.MockTransport(self.handle), sleep=self._sleep, jitter=lambda: 0.0)
        return replace(made, **changes)

    def fail(self, path: str, *faults: Fault) -> None:
        """Answer the next requests to ``path`` with these, one each."""
        self.faults.setdefault(path, deque()).extend(faults)

    def lose(self, path: str, *errors: Exception) -> None:
        """Carry the next requests to ``path`` out, but raise these instead of answering, one each."""
        self.lost.setdefault(path, deque()).extend(errors)

    def advance(self, job_uuid: str, status: str, metadata: dict[str, Any] | None = None, **changes: Any) -> None:
        """Record a status, and push it to every open stream. A final one ends the job's output."""
        job = self.jobs[job_uuid]
        entry = StatusEntry(
            status=JobStatus(status),
            metadata=StatusMetadata.model_validate(metadata or {}),
            created_at=START + dt.timedelta(seconds=len(job.status_history)),
        )
        self._jobs.replace(
            job_uuid,
            status_history=[*job.status_history, entry],
            status=status,
            last_update=entry.created_at,
            queue=entry.metadata.queue,
            attempt=entry.metadata.attempt.number if entry.metadata.attempt else job.attempt,
        )
        self._jobs.replace(job_uuid, **changes)
        self._history.append(JobEvent(job_uuid=job_uuid, entry=entry))
        for stream in self._streams:
            stream.put_nowait(self._frame(len(self._history)))
        if status in ENDED:
            self.output_of(job_uuid).end()

    def place(self, job_uuid: str, **place: Any) -> None:
        """Give a waiting job a new place, and push it."""
        event = JobQueueEvent(job_uuid=job_uuid, queue=QueuePlace.model_validate(place))
        self._jobs.replace(job_uuid, queue=event.queue)
        self.push_bytes(f"event: queue\ndata: {event.model_dump_json()}\n\n".encode())

    def retry(self, job_uuid: str, failure: dict[str, Any], number: int, of: int = 3) -> None:
        """The job waits for attempt ``number``, after ``failure``: the metadata of the attempt before. Its output
        begins anew."""
        queue = {"position": 1, "length": 1, "starts_in_s": 1.0, "time_limit_s": 60.0}
        self._outputs[job_uuid] = FakeOutput()
        self.advance(job_uuid, "queued", {**failure, "attempt": {"number": number, "of": of}, "queue": queue})

    def print(self, job_uuid: str, stream: str, text: str) -> None:
        """The job prints ``text`` to ``stdout`` or ``stderr``."""
        self.output_of(job_uuid).print(stream, text)

    def output_of(self, job_uuid: str) -> FakeOutput:
        """What the job printed, and who follows it."""
        return self._outputs.setdefault(job_uuid, FakeOutput())

    def drop(self) -> None:
        """Break every open event stream off."""
        for stream in self._streams:
            stream.put_nowait(None)

    def push_bytes(self, raw: bytes) -> None:
        """Put raw bytes on every open event stream."""
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
        faulty = bool(self.faults.get(request.url.path))
        response = await self._respond(request)
        response.headers.update(announcement(self.extensions) if self.extensions else {})
        lost = self.lost.get(request.url.path)
        if lost and not faulty:
            raise lost.popleft()
        return response

    async def _respond(self, request: httpx.Request) -> httpx.Response:
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
        try:
            return self._answer(request, path)
        except Refused as refused:
            return _json(refused.status, refused.body)

    def _answer(self, request: httpx.Request, path: str) -> httpx.Response:
        self._jobs.extensions = self.extensions
        match (request.method, path.strip("/").split("/")):
            case ("POST", ["api", "v1", "job-docker"]):
                job, is_new = self._jobs.create(request.content, request.headers)
                if is_new:
                    self.advance(job.uuid, "sent")
                return _json(201, self.jobs[job.uuid].model_dump(mode="json"))
            case ("GET", ["api", "v1", "jobs"]):
                url = str(request.url.copy_with(query=None))
                return _json(200, self._jobs.page(request.url.params, url).model_dump(mode="json"))
            case ("GET", ["api", "v1", "jobs", job_uuid]) if job_uuid in self.jobs:
                return _json(200, self.jobs[job_uuid].model_dump(mode="json"))
            case ("GET", ["api", "v1", "jobs", job_uuid, "explanation"]) if self._offers(
                job_uuid, Extension.EXPLAIN
            ):
                return _json(200, self._explanation(job_uuid).model_dump(mode="json"))
            case ("POST", ["api", "v1", "jobs", job_uuid, "cancel"]) if self._offers(job_uuid, Extension.CANCEL):
                if self.jobs[job_uuid].status not in ENDED:
                    self._jobs.replace(job_uuid, cancel_requested=True)
                return _json(200, self.jobs[job_uuid].model_dump(mode="json"))
            case ("GET", ["api", "v1", "jobs", job_uuid, "logs"]) if self._offers(job_uuid, Extension.LOGS):
                return self._logs(request, job_uuid)
            case ("GET", ["api", "v1", "events"]) if Extension.EVENTS in self.extensions and self.pushes:
                last_id = request.headers.get("Last-Event-ID", "")
                self.on_stream(last_id)
                return httpx.Response(200, headers=SSE, stream=FakeStream(self._stream(last_id)))
            case ("POST", ["api", "v1", "cheated-job"]):
                return self._report(json.loads(request.content))
        return _json(404, {"detail": "No Job matches the given query."})

    def _explanation(self, job_uuid: str) -> Explanation:
        state = self.jobs[job_uuid].status
        plain = Explanation(
            job_uuid=job_uuid, state=state, summary=f"The job is {state}.", reported_by="facilitator"
        )
        return self.explanations.get(job_uuid, plain)

    def _offers(self, job_uuid: str, extension: Extension) -> bool:
        return extension in self.extensions and job_uuid in self.jobs

    def _login(self, body: dict[str, str]) -> httpx.Response:
        if bytes.fromhex(body["signature"]) != sign_bytes(self.hotkey, body["nonce"].encode()):
            return _json(401, {"error": "Invalid signature"})
        self.logins += 1
        return _json(200, {"token": f"token-{self.logins}"})

    def _report(self, body: dict[str, Any]) -> httpx.Response:
        if any(report["job_uuid"] == body["job_uuid"] for report in self.reports):
            return _json(400, {"error": "Cheat report already exists for this job"})
        self.reports.append(body)
        return _json(201, {"message": "Job reported as cheated"})

    def _logs(self, request: httpx.Request, job_uuid: str) -> httpx.Response:
        if self.jobs[job_uuid].status in ENDED:
            return httpx.Response(200, headers=SSE, content=end_frame("ended"))
        position = request.headers.get("Last-Event-ID") or request.url.params.get("position", "0")
        return httpx.Response(200, headers=SSE, stream=FakeStream(self.output_of(job_uuid).follow(int(position))))

    async def _stream(self, last_id: str) -> AsyncGenerator[bytes, None]:
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

"""A stand-in for the existing network's facilitator, as PROTOCOL.md section 2 describes it, quirks included.

``handle`` answers one request; over a socket it is served by :mod:`tests.contract.sdk.serving`.
"""

import asyncio
import datetime as dt
import json
import random
import uuid as uuids
from collections import defaultdict, deque
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any

import httpx

from compute_horde.protocol.compat.labels import LABELS
from compute_horde.protocol.enums import ExecutorClass, JobStatus
from compute_horde.protocol.sdk_facilitator import iso_utc
from compute_horde.protocol.signing import Signature, SignedFields, digest
from compute_horde_sdk._internal.wire.fake import FakeHotkey

MAX_BODY_BYTES = 2_621_440
LIMITS = ("download_time_limit", "execution_time_limit", "streaming_start_time_limit", "upload_time_limit")
REQUIRED = ("target_validator_hotkey", *LIMITS)
VOLUME_TYPES = {"inline", "zip_url", "single_file", "huggingface_volume"}
HTML_500 = "<!doctype html><html><head><title>Server Error (500)</title></head></html>"


class Crash(Exception):  # noqa: N818 - the view dies of it
    """Django answers with its page for 500."""


class Refused(Exception):  # noqa: N818 - reads as what happened
    def __init__(self, status: int, body: object) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


@dataclass
class LegacyFacilitator:
    """``lost``: answers to the next requests for a path that are lost after the request was carried out."""

    hotkey: FakeHotkey = field(default_factory=FakeHotkey)
    validators: set[str] = field(default_factory=lambda: {"validator"})
    whitelisted: bool = True
    expired: set[str] = field(default_factory=set)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)
    lost: defaultdict[str, deque[Exception]] = field(default_factory=lambda: defaultdict(deque))
    faults: defaultdict[str, deque[httpx.Response | Exception]] = field(default_factory=lambda: defaultdict(deque))
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    logins: int = 0
    clock_ahead: dt.timedelta = dt.timedelta()

    def __post_init__(self) -> None:
        self._random = random.Random(7)  # the list has no order

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.clock_ahead

    def advance(self, job_uuid: str, status: str, metadata: dict[str, Any] | None = None, **fields: Any) -> None:
        """What the validator reports. The same status is recorded once; unknown words become ``unknown``."""
        job = self.jobs[job_uuid]
        name = JobStatus(status).value
        if all(entry["status"] != name for entry in job["status_history"]):
            moment = iso_utc(self.now())
            entry = {"status": name, "metadata": metadata or {}, "created_at": moment}
            job["status_history"].append(entry)
            job.update(last_update=moment, **fields)

    def sent(self, method: str, path: str) -> list[httpx.Request]:
        """The requests that came for this method and path."""
        return [one for one in self.requests if one.method == method and one.url.path == path]

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, as the application behind its proxy does."""
        await asyncio.sleep(0)
        self.requests.append(request)
        path = request.url.path
        if faults := self.faults[path]:
            fault = faults.popleft()
            if isinstance(fault, Exception):
                raise fault
            return fault
        try:
            response = self._answer(request, path)
        except Refused as refused:
            response = httpx.Response(refused.status, json=refused.body)
        except Crash:
            response = httpx.Response(500, html=HTML_500)
        response.headers["Date"] = format_datetime(self.now(), usegmt=True)
        if self.lost[path]:
            raise self.lost[path].popleft()
        return response

    def _answer(self, request: httpx.Request, path: str) -> httpx.Response:
        if path == "/auth/nonce":
            return httpx.Response(200, json={"nonce": f"{uuids.uuid4().hex}:1vXyZ0:signed"})
        if path == "/auth/login":
            return self._login(json.loads(request.content))
        if len(request.content) > MAX_BODY_BYTES:
            return httpx.Response(400, html="<h1>Bad Request (400)</h1>")
        if path == "/api/v1/job-docker/":
            self._check_signature(request)  # a middleware, before the token is looked at
        self._check_token(request)
        match (request.method, path.strip("/").split("/")[2:]):
            case ("POST", ["job-docker"]):
                return httpx.Response(201, json=self._shown(self._create(json.loads(request.content))))
            case ("GET", ["jobs"]):
                return httpx.Response(200, json=self._page(request))
            case ("GET", ["jobs", job_uuid]):
                return httpx.Response(200, json=self._shown(self._job(job_uuid)))
            case ("POST", ["cheated-job"]):
                return self._report(json.loads(request.content))
        return httpx.Response(404, html="<h1>Not Found</h1>")

    def _login(self, body: dict[str, str]) -> httpx.Response:
        signed = self.hotkey.sign(body["nonce"].encode())
        if body["signature"].startswith("0x"):
            return httpx.Response(400, json={"error": "Nonce expired or not found"})
        if bytes.fromhex(body["signature"]) != signed:
            return httpx.Response(401, json={"error": "Invalid signature"})
        if not self.whitelisted:
            return httpx.Response(400, json={"error": "Hotkey not allowed"})
        self.logins += 1
        return httpx.Response(200, json={"token": f"token-{self.logins}"})

    def _check_token(self, request: httpx.Request) -> None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise Refused(401, {"detail": "Authentication credentials were not provided."})
        if token in self.expired:
            raise Refused(401, {"detail": "Token expired."})
        if not self.whitelisted:
            raise Refused(401, {"detail": "Unauthorized hotkey."})

    @staticmethod
    def _check_signature(request: httpx.Request) -> None:
        try:
            signature = Signature.from_headers(request.headers)
            payload = SignedFields.from_body(json.loads(request.content)).payload()
        except Exception:
            raise Crash from None
        if signature.raw != digest(signature.timestamp_ns, payload):
            raise Crash

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        _validate(body)
        if body["target_validator_hotkey"] not in self.validators:
            raise Refused(400, ["Could not select Validator"])
        moment = iso_utc(self.now())
        job = {
            "uuid": str(uuids.uuid4()),
            "executor_class": body.get("executor_class", "spin_up-4min.gpu-24gb"),
            "docker_image": body.get("docker_image", "").strip(),
            "job_namespace": body.get("job_namespace"),
            "args": [arg.strip() for arg in body.get("args", [])],
            "env": dict(sorted(body.get("env", {}).items())),
            "use_gpu": body.get("use_gpu", False),
            "tag": body.get("tag", ""),
            "artifacts_dir": body.get("artifacts_dir", ""),
            "target_validator_hotkey": body["target_validator_hotkey"],
            "on_trusted_miner": body.get("on_trusted_miner", False),
            "created_at": moment,
            "last_update": moment,
            "stdout": "",
            "stderr": "",
            "volumes": body.get("volumes", []),
            "uploads": [{**upload, "system_output": False} for upload in body.get("uploads", [])],
            "artifacts": {},
            "upload_results": {},
            **{name: body[name] for name in LIMITS},
            "streaming_client_cert": body.get("streaming_details", {}).get("public_key", ""),
            "streaming_server_cert": "",
            "streaming_server_address": "",
            "streaming_server_port": 0,
            "status_history": [{"status": "sent", "metadata": {}, "created_at": moment}],
        }
        self.jobs[str(job["uuid"])] = job
        return job

    def _shown(self, job: dict[str, Any]) -> dict[str, Any]:
        latest = job["status_history"][-1]["status"]
        if latest == "unknown":
            raise Crash  # no label for it
        return {**job, "status": LABELS[JobStatus(latest)]}

    def _job(self, job_uuid: str) -> dict[str, Any]:
        if not _is_uuid(job_uuid):
            raise Refused(404, {"detail": "Not found."})
        if job_uuid not in self.jobs:
            raise Refused(404, {"detail": "No Job matches the given query."})
        return self.jobs[job_uuid]

    def _page(self, request: httpx.Request) -> dict[str, Any]:
        params = request.url.params
        wanted = params.get_list("uuid")
        if not all(map(_is_uuid, wanted)):
            raise Crash
        found = [
            job
            for job in self.jobs.values()
            if params.get("tag", job["tag"]) == job["tag"] and (not wanted or job["uuid"] in wanted)
        ]
        self._random.shuffle(found)
        number, size = int(params.get("page", 1)), min(int(params.get("page_size", 10)), 256)
        shown = found[(number - 1) * size : number * size]
        if not shown and number > 1:
            raise Refused(404, {"detail": "Invalid page."})
        url = request.url.copy_set_param("page", number + 1)
        return {
            "count": len(found),
            "next": str(url) if number * size < len(found) else None,
            "previous": None,
            "results": list(map(self._shown, shown)),
        }

    def _report(self, body: dict[str, Any]) -> httpx.Response:
        for name, trusted, said in (("job_uuid", False, "Job"), ("trusted_job_uuid", True, "Trusted job")):
            if name not in body:
                raise Refused(400, {name: ["This field is required."]})
            if not _is_uuid(body[name]):
                raise Refused(400, {name: ["Must be a valid UUID."]})
            job = self.jobs.get(body[name])
            if job is None or job["on_trusted_miner"] is not trusted:
                raise Refused(404, {"error": f"{said} not found"})
        if body["job_uuid"] in self.reports:
            raise Refused(400, {"error": "Cheat report already exists for this job"})
        self.reports[body["job_uuid"]] = body
        return httpx.Response(201, json={"message": "Job reported as cheated"})


def _validate(body: dict[str, Any]) -> None:
    for name in REQUIRED:
        if name not in body:
            raise Refused(400, {name: ["This field is required."]})
    for name in LIMITS:
        if isinstance(body[name], bool) or not isinstance(body[name], int):
            raise Refused(400, {name: ["A valid integer is required."]})
    for name in ("artifacts_dir", "volumes", "uploads"):
        if name in body and body[name] is None:
            raise Refused(400, {name: ["This field may not be null."]})
    if body.get("executor_class", "spin_up-4min.gpu-24gb") not in list(ExecutorClass):
        raise Crash
    if body.get("args", []) is None or ("streaming_details" in body and body["streaming_details"] is None):
        raise Crash
    _validate_args(body.get("args", []))
    for volume in body.get("volumes", []):
        if volume["volume_type"] not in VOLUME_TYPES:
            raise Refused(400, {"volumes": [{"type": "union_tag_invalid", "loc": [], "msg": "no such volume"}]})
    if len(body.get("tag", "")) > 255:
        raise Refused(400, {"tag": ["Ensure this field has no more than 255 characters."]})


def _validate_args(args: list[str]) -> None:
    for index, arg in enumerate(args):
        if not arg.strip():
            raise Refused(400, {"args": {str(index): ["This field may not be blank."]}})


def _is_uuid(text: str) -> bool:
    try:
        uuids.UUID(text)
    except ValueError:
        return False
    return True

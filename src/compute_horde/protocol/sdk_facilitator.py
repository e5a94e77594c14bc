"""HTTP between a client and the facilitator: login, jobs, pages, cheat reports, events (section 2)."""

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, field_serializer

from compute_horde.protocol.base import Message
from compute_horde.protocol.control import LogPiece
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import ExecutorClass, JobStatus
from compute_horde.protocol.paths import artifacts_dir_problem
from compute_horde.protocol.receipts import UUID_PATTERN
from compute_horde.protocol.scheduling import (
    Attempts,
    BackoffSeconds,
    Priority,
    QueuePlace,
    QueueSeconds,
    Scheduling,
)
from compute_horde.protocol.uploads import SingleFileUpload
from compute_horde.protocol.volumes import SingleVolume

MAX_IMAGE_CHARS = 255
MAX_NAMESPACE_CHARS = 100
MAX_TAG_CHARS = 255
MAX_LIMIT_SECONDS = 7 * 24 * 3600
MAX_PAGE_SIZE = 256


def iso_utc(moment: dt.datetime) -> str:
    """ISO 8601 in UTC with microseconds and ``Z``: the facilitator's only time format."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _artifacts_dir(value: str | None) -> str:
    if value and (why := artifacts_dir_problem(value)):
        raise ValueError(f"artifacts_dir {value[:100]!r} {why}")
    return value or ""


def _image(value: str) -> str:
    if not value or value != value.strip() or any(c.isspace() for c in value):
        raise ValueError("docker_image must be an image reference without blanks, such as 'user/image:tag'")
    return value


def _no_nul(values: list[str]) -> list[str]:
    if any("\0" in value for value in values):
        raise ValueError("args must not contain NUL characters")
    return values


def _env(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"env name {name[:100]!r} must not be empty and must not contain '=' or NUL")
    return values


LimitSeconds = Annotated[int, Field(ge=0, le=MAX_LIMIT_SECONDS, strict=True)]


class NonceResponse(Message):
    nonce: str


class LoginRequest(Message):
    """``signature``: bare hex over the UTF-8 bytes of the whole nonce."""

    hotkey: str
    signature: str
    nonce: str


class LoginResponse(Message):
    token: str


class StreamingRequest(Message):
    public_key: str


class JobRequest(Message):
    """Body of ``POST /api/v1/job-docker/`` (section 2.5). Nothing is trimmed: the text is signed (G7).

    Ours, not signed, ignored by older facilitators: ``run_cross_validation`` says that the same job will be sent
    to the trusted miner; that other one names this one in ``cross_validates``. The last four are the wishes of
    :class:`~compute_horde.protocol.scheduling.Scheduling`.
    """

    target_validator_hotkey: str = Field(min_length=1, max_length=64)
    executor_class: ExecutorClass = ExecutorClass.spin_up_4min__gpu_24gb
    docker_image: Annotated[str, Field(max_length=MAX_IMAGE_CHARS), AfterValidator(_image)]
    job_namespace: Annotated[str, Field(max_length=MAX_NAMESPACE_CHARS)] | None = None
    args: Annotated[list[str], AfterValidator(_no_nul)] = Field(default_factory=list)
    env: Annotated[dict[str, str], AfterValidator(_env)] = Field(default_factory=dict)
    use_gpu: bool = False
    artifacts_dir: Annotated[str | None, Field(max_length=255), AfterValidator(_artifacts_dir)] = ""
    on_trusted_miner: bool = False
    download_time_limit: LimitSeconds
    execution_time_limit: LimitSeconds
    streaming_start_time_limit: LimitSeconds
    upload_time_limit: LimitSeconds
    streaming_details: StreamingRequest | None = None
    volumes: list[SingleVolume] = Field(default_factory=list)
    uploads: list[SingleFileUpload] = Field(default_factory=list)
    tag: Annotated[str, Field(max_length=MAX_TAG_CHARS)] = ""
    run_cross_validation: bool = False
    cross_validates: Annotated[str, Field(pattern=UUID_PATTERN)] | None = None
    queue_time_limit: QueueSeconds | None = None
    attempts: Attempts | None = None
    retry_backoff: BackoffSeconds | None = None
    priority: Priority = 0

    @property
    def scheduling(self) -> Scheduling:
        return Scheduling(
            queue_time_limit=self.queue_time_limit,
            attempts=self.attempts,
            retry_backoff=self.retry_backoff,
            priority=self.priority,
        )


class StatusEntry(Message):
    """One entry of ``status_history``; null members of ``metadata`` are left out."""

    status: JobStatus
    metadata: StatusMetadata = Field(default_factory=StatusMetadata)
    created_at: dt.datetime

    @field_serializer("metadata")
    def _without_nulls(self, value: StatusMetadata) -> dict[str, Any]:
        return value.model_dump(mode="json", exclude_none=True)

    @field_serializer("created_at")
    def _iso(self, value: dt.datetime) -> str:
        return iso_utc(value)


class Job(Message):
    """The job object of create, retrieve and list (section 2.6).

    Ours: ``run_cross_validation``; ``trusted_job_uuid``, the repetition on the trusted miner once there is one;
    ``cross_validates``, the job that this one repeats; ``cancel_requested``; the wishes about scheduling;
    ``queue``, its place while it waits; ``attempt``, the one under way or last made.
    """

    uuid: str
    executor_class: str
    docker_image: str
    job_namespace: str | None = None
    args: list[str] = Field(default_factory=list)
    env: dict[str, str] = Field(default_factory=dict)
    use_gpu: bool = False
    tag: str = ""
    artifacts_dir: str = ""
    target_validator_hotkey: str = ""
    on_trusted_miner: bool = False
    created_at: dt.datetime
    last_update: dt.datetime | None = None
    status: str = ""
    stdout: str = ""
    stderr: str = ""
    volumes: list[dict[str, Any]] = Field(default_factory=list)
    uploads: list[dict[str, Any]] = Field(default_factory=list)
    artifacts: dict[str, str] = Field(default_factory=dict)
    upload_results: dict[str, str] = Field(default_factory=dict)
    download_time_limit: int = 0
    execution_time_limit: int = 0
    streaming_start_time_limit: int = 0
    upload_time_limit: int = 0
    streaming_client_cert: str = ""
    streaming_server_cert: str = ""
    streaming_server_address: str = ""
    streaming_server_port: int = 0
    status_history: list[StatusEntry] = Field(default_factory=list)
    run_cross_validation: bool = False
    trusted_job_uuid: str | None = None
    cross_validates: str | None = None
    cancel_requested: bool = False
    queue_time_limit: int | None = None
    attempts: int | None = None
    retry_backoff: float | None = None
    priority: int = 0
    queue: QueuePlace | None = None
    attempt: int = 1

    @field_serializer("created_at", "last_update")
    def _iso(self, value: dt.datetime | None) -> str | None:
        return iso_utc(value) if value else None


class JobPage(Message):
    """``next`` and ``previous``: absolute URLs or null."""

    count: int
    next: str | None = None
    previous: str | None = None
    results: list[Job]


class CheatReport(Message):
    """Body of ``POST /api/v1/cheated-job/`` (section 2.8)."""

    job_uuid: str = Field(pattern=UUID_PATTERN)
    trusted_job_uuid: str = Field(pattern=UUID_PATTERN)
    details: JsonValue = None


class Feedback(Message):
    """Body of ``PUT /api/v1/jobs/{uuid}/feedback/`` (section 2.9)."""

    result_correctness: float = Field(ge=0, le=1)
    expected_duration: float | None = Field(default=None, ge=0)


class JobEvent(Message):
    """One server-sent event of ``GET /api/v1/events/`` (ours): a new status entry of one of the user's jobs.

    The SSE ``id`` is the entry's position in the facilitator's history; a client that sends it back as
    ``Last-Event-ID`` gets every later entry, none missed and none repeated.
    """

    event: Literal["status"] = "status"
    job_uuid: str
    entry: StatusEntry


class JobQueueEvent(Message):
    """One event ``queue`` of the same stream, to clients that announced ``queue``: a waiting job's new place.

    It has no ``id``: it is not part of the history, and a client that missed some gets the newest.
    """

    event: Literal["queue"] = "queue"
    job_uuid: str
    queue: QueuePlace


class JobLogs(Message):
    """One event ``logs`` of ``GET /api/v1/jobs/{uuid}/logs/`` (ours, SSE); its ``id`` is ``position``."""

    position: int
    pieces: list[LogPiece]


class JobLogsEnd(Message):
    """The last event, ``end``, of the same stream.

    ``ended``: all that was kept has been sent. ``unavailable``: a peer on the way could not tell; the output comes
    with the job's result.
    """

    reason: Literal["ended", "unavailable"]

"""The validator's WebSocket to the facilitator (section 5). The validator dials; both sides send."""

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    Tag,
    TypeAdapter,
    model_serializer,
)

from compute_horde.protocol.base import Message, StrictMessage, without_unset
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import ExecutorClass, JobStatus
from compute_horde.protocol.explanation import Explanation
from compute_horde.protocol.scheduling import MAX_POSITIONS, QueuedJob, Scheduling
from compute_horde.protocol.signing import Signature, SignedFields
from compute_horde.protocol.uploads import MultiUpload, OutputUpload
from compute_horde.protocol.volumes import MultiVolume, Volume

HEADER_VERSION = "X-Validator-Version"
HEADER_RUNNER_VERSION = "X-Validator-Runner-Version"
HEADER_MAX_FRAME = "X-CH-Max-Frame-Bytes"
"""Ours: the largest frame this validator can receive. Absent: 1 MiB, the existing validator's limit (G20)."""

HEADER_INSTANCE = "X-CH-Instance"
"""Ours, with the extension ``claims``: names the validator's database: processes that share one are the same."""

CLAIMED_ELSEWHERE = "job.claimed_elsewhere"
"""The error that answers ``received`` of a job that another instance of the same validator has: do not run it."""

CLOSE_SIGNATURE_INVALID = 3000
CLOSE_DISCONNECTED = 3001
HEARTBEAT_SECONDS = 60
FRESH_SECONDS = 180


class V0AuthenticationRequest(StrictMessage):
    """``public_key``: bare hex; ``signature``: ``0x`` + hex over the raw 32 key bytes."""

    message_type: Literal["V0AuthenticationRequest"] = "V0AuthenticationRequest"
    public_key: str
    signature: str


class V0Heartbeat(StrictMessage):
    message_type: Literal["V0Heartbeat"] = "V0Heartbeat"


class V0JobStatusUpdate(StrictMessage):
    """Answered by exactly one :class:`Response`."""

    message_type: Literal["V0JobStatusUpdate"] = "V0JobStatusUpdate"
    uuid: str
    status: JobStatus
    metadata: StatusMetadata | None = None


class V0QueueUpdate(Message):
    """Ours (``queue``): new places of waiting jobs. Not answered; what is lost comes with the next one."""

    message_type: Literal["V0QueueUpdate"] = "V0QueueUpdate"
    jobs: list[QueuedJob] = Field(max_length=MAX_POSITIONS)


class V0ExplainJobRequest(Message):
    """Ours (``explain``), to the validator. ``request_id`` comes back."""

    message_type: Literal["V0ExplainJobRequest"] = "V0ExplainJobRequest"
    job_uuid: str
    request_id: str = Field(min_length=1, max_length=64)


class V0ExplainJobResponse(Message):
    """The answer. None: the validator does not know this job."""

    message_type: Literal["V0ExplainJobResponse"] = "V0ExplainJobResponse"
    job_uuid: str
    request_id: str = Field(min_length=1, max_length=64)
    explanation: Explanation | None = None


class V0MachineSpecsUpdate(StrictMessage):
    message_type: Literal["V0MachineSpecsUpdate"] = "V0MachineSpecsUpdate"
    miner_hotkey: str
    validator_hotkey: str
    specs: dict[str, JsonValue]
    batch_id: str


ValidatorToFacilitator = Annotated[
    V0AuthenticationRequest
    | V0Heartbeat
    | V0JobStatusUpdate
    | V0MachineSpecsUpdate
    | V0JobLogsResponse
    | V0QueueUpdate
    | V0ExplainJobResponse,
    Field(discriminator="message_type"),
]
VALIDATOR_TO_FACILITATOR: TypeAdapter[ValidatorToFacilitator] = TypeAdapter(ValidatorToFacilitator)


class ResponseError(Message):
    msg: str
    type: str
    help: str = ""


class Response(StrictMessage):
    """The answer to one authentication or status update; it carries no id, so order is what ties them."""

    status: Literal["success", "error"]
    errors: list[ResponseError] = Field(default_factory=list)

    @classmethod
    def error(cls, type_: str, msg: str, help_: str = "") -> "Response":
        return cls(status="error", errors=[ResponseError(msg=msg, type=type_, help=help_)])


class StreamingClientDetails(Message):
    """The client's certificate. Key order is signed."""

    public_key: str
    executor_ip: str | None = None


class V2JobRequest(StrictMessage):
    """A signed job on its way to the validator; volumes and uploads are wrapped into one each."""

    signature: Signature
    type: Literal["job.new"] = "job.new"
    message_type: Literal["V2JobRequest"] = "V2JobRequest"
    uuid: str
    job_namespace: str | None = None
    executor_class: ExecutorClass
    docker_image: str
    args: list[str]
    env: dict[str, str]
    use_gpu: bool = True
    volume: Volume | None = None
    output_upload: OutputUpload | None = None
    artifacts_dir: str | None = None
    on_trusted_miner: bool = False
    download_time_limit: int
    execution_time_limit: int
    upload_time_limit: int
    streaming_start_time_limit: int
    streaming_details: StreamingClientDetails | None = None
    scheduling: Scheduling | None = None  # ours: only to a validator that announced ``queue``

    @model_serializer(mode="wrap")
    def _as_older_peers_know_it(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unset(handler(self), "scheduling")

    def signed_fields(self) -> SignedFields:
        """What the user signed, rebuilt from the parsed message: every model key, model order (section 3.4)."""
        return SignedFields(
            executor_class=self.executor_class.value,
            docker_image=self.docker_image,
            args=self.args,
            env=self.env,
            use_gpu=self.use_gpu,
            artifacts_dir=self.artifacts_dir or "",
            on_trusted_miner=self.on_trusted_miner,
            download_time_limit=self.download_time_limit,
            execution_time_limit=self.execution_time_limit,
            upload_time_limit=self.upload_time_limit,
            streaming_start_time_limit=self.streaming_start_time_limit,
            streaming_details=self.streaming_details.model_dump() if self.streaming_details else None,
            volumes=[part.model_dump() for part in _parts(self.volume, MultiVolume, "volumes")],
            uploads=[part.model_dump() for part in _parts(self.output_upload, MultiUpload, "uploads")],
        )


def _parts(whole: Message | None, multi: type[Message], name: str) -> list[Message]:
    if whole is None:
        return []
    parts: list[Message] = getattr(whole, name) if isinstance(whole, multi) else [whole]
    return parts


class V0JobCheated(StrictMessage):
    """A user's report that a miner cheated. ``details`` is always sent, null included (G2)."""

    signature: Signature
    type: Literal["job.cheated"] = "job.cheated"
    message_type: Literal["V0JobCheated"] = "V0JobCheated"
    job_uuid: str
    trusted_job_uuid: str
    details: JsonValue = None

    def signed_payload(self) -> dict[str, JsonValue]:
        return {
            "job_uuid": self.job_uuid,
            "trusted_job_uuid": self.trusted_job_uuid,
            "details": self.details,
        }


def _kind(value: Any) -> str:
    """``Response`` is the only message of this direction without a ``message_type``."""
    if isinstance(value, dict):
        return str(value.get("message_type", "Response"))
    return str(getattr(value, "message_type", "Response"))


FacilitatorToValidator = Annotated[
    Annotated[Response, Tag("Response")]
    | Annotated[V2JobRequest, Tag("V2JobRequest")]
    | Annotated[V0JobCheated, Tag("V0JobCheated")]
    | Annotated[V0CancelJobRequest, Tag("V0CancelJobRequest")]
    | Annotated[V0JobLogsRequest, Tag("V0JobLogsRequest")]
    | Annotated[V0ExplainJobRequest, Tag("V0ExplainJobRequest")],
    Discriminator(_kind),
]
FACILITATOR_TO_VALIDATOR: TypeAdapter[FacilitatorToValidator] = TypeAdapter(FacilitatorToValidator)

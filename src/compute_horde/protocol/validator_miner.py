"""The validator's WebSocket to a miner (section 6). The validator dials; both sides send."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, ConfigDict, Field, JsonValue, TypeAdapter

from compute_horde.protocol.base import Message
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.details import MinerResponse
from compute_horde.protocol.enums import (
    DockerPreset,
    ExecutorClass,
    FailureReason,
    HordeFailureReason,
    Participant,
    RejectionReason,
    Stage,
)
from compute_horde.protocol.facilitator_validator import StreamingClientDetails
from compute_horde.protocol.receipts import (
    JobAcceptedPayload,
    JobFinishedPayload,
    JobStartedPayload,
    Receipt,
)
from compute_horde.protocol.scheduling import FreeExecutors
from compute_horde.protocol.signing import Signer, Verifier, hex_signature, verify_hex
from compute_horde.protocol.uploads import OutputUpload
from compute_horde.protocol.volumes import Volume

VALIDATOR_PATH = "/v0.1/validator_interface/"
AUTH_MAX_AGE_SECONDS = 10


class ValidatorAuthForMiner(Message):
    """First frame of every connection. ``timestamp``: UNIX seconds."""

    message_type: Literal["ValidatorAuthForMiner"] = "ValidatorAuthForMiner"
    validator_hotkey: str
    miner_hotkey: str
    timestamp: int
    signature: str

    @staticmethod
    def signed_bytes(validator_hotkey: str, miner_hotkey: str, timestamp: int) -> bytes:
        return f"{validator_hotkey}:{miner_hotkey}:{timestamp}".encode()

    @classmethod
    def make(cls, signer: Signer, miner_hotkey: str, timestamp: int) -> "ValidatorAuthForMiner":
        data = cls.signed_bytes(signer.ss58_address, miner_hotkey, timestamp)
        return cls(
            validator_hotkey=signer.ss58_address,
            miner_hotkey=miner_hotkey,
            timestamp=timestamp,
            signature=hex_signature(signer, data),
        )

    def is_signed(self, verifier: Verifier) -> bool:
        data = self.signed_bytes(self.validator_hotkey, self.miner_hotkey, self.timestamp)
        return verify_hex(verifier, self.validator_hotkey, data, self.signature)


class ExecutorTiming(Message):
    """Limits in whole seconds."""

    allowed_leeway: int | None = None
    download_time_limit: int | None = None
    execution_time_limit: int | None = None
    upload_time_limit: int | None = None
    streaming_start_time_limit: int | None = None


class V0InitialJobRequest(Message):
    """Asks for an executor; carries the volume, so that the executor can prepare."""

    message_type: Literal["V0InitialJobRequest"] = "V0InitialJobRequest"
    validator_signature: str | None = None
    job_uuid: str
    executor_class: ExecutorClass
    docker_image: str | None = None
    timeout_seconds: int | None = None
    volume: Volume | None = None
    job_started_receipt_payload: JobStartedPayload
    job_started_receipt_signature: str
    streaming_details: StreamingClientDetails | None = None
    executor_timing: ExecutorTiming | None = None


class V0JobRequest(Message):
    """The whole job. ``volume`` is null when it went with the initial request."""

    message_type: Literal["V0JobRequest"] = "V0JobRequest"
    validator_signature: str | None = None
    job_uuid: str
    executor_class: ExecutorClass
    docker_image: str
    raw_script: str | None = None
    docker_run_options_preset: DockerPreset
    docker_run_cmd: list[str]
    env: dict[str, str] = Field(default_factory=dict)
    volume: Volume | None = None
    output_upload: OutputUpload | None = None
    artifacts_dir: str | None = None


class V0JobAcceptedReceiptRequest(Message):
    message_type: Literal["V0JobAcceptedReceiptRequest"] = "V0JobAcceptedReceiptRequest"
    payload: JobAcceptedPayload
    signature: str


class V0JobFinishedReceiptRequest(Message):
    message_type: Literal["V0JobFinishedReceiptRequest"] = "V0JobFinishedReceiptRequest"
    payload: JobFinishedPayload
    signature: str


class V0MainHotkeyMessage(Message):
    """Asked with null, answered with the miner's main hotkey or null."""

    message_type: Literal["V0MainHotkeyMessage"] = "V0MainHotkeyMessage"
    main_hotkey: str | None = None


class GenericError(Message):
    message_type: Literal["GenericError"] = "GenericError"
    details: str | None = None


ValidatorToMiner = Annotated[
    ValidatorAuthForMiner
    | V0InitialJobRequest
    | V0JobRequest
    | V0JobAcceptedReceiptRequest
    | V0JobFinishedReceiptRequest
    | V0MainHotkeyMessage
    | V0CancelJobRequest
    | V0JobLogsRequest
    | GenericError,
    Field(discriminator="message_type"),
]
VALIDATOR_TO_MINER: TypeAdapter[ValidatorToMiner] = TypeAdapter(ValidatorToMiner)


class V0ExecutorManifestRequest(Message):
    """First answer to a validator: how many executors of each class the miner has."""

    message_type: Literal["V0ExecutorManifestRequest"] = "V0ExecutorManifestRequest"
    manifest: dict[ExecutorClass, int]


class V0FreeExecutorsRequest(Message):
    """Ours (``capacity``): how many executors of each class are free, after the manifest and at each change."""

    message_type: Literal["V0FreeExecutorsRequest"] = "V0FreeExecutorsRequest"
    free: FreeExecutors


class V0AcceptJobRequest(Message):
    message_type: Literal["V0AcceptJobRequest"] = "V0AcceptJobRequest"
    job_uuid: str


class V0DeclineJobRequest(Message):
    message_type: Literal["V0DeclineJobRequest"] = "V0DeclineJobRequest"
    job_uuid: str
    message: str = ""
    reason: RejectionReason = RejectionReason.UNKNOWN
    receipts: list[Receipt] = Field(default_factory=list)
    context: dict[str, JsonValue] | None = None


class V0ExecutorReadyRequest(Message):
    message_type: Literal["V0ExecutorReadyRequest"] = "V0ExecutorReadyRequest"
    job_uuid: str
    executor_token: str | None = None


class V0VolumesReadyRequest(Message):
    message_type: Literal["V0VolumesReadyRequest"] = "V0VolumesReadyRequest"
    job_uuid: str


class V0StreamingJobReadyRequest(Message):
    """The executor sends it without ``ip`` and signature; the miner fills both in."""

    message_type: Literal["V0StreamingJobReadyRequest"] = "V0StreamingJobReadyRequest"
    job_uuid: str
    public_key: str
    ip: str | None = None
    port: int
    miner_signature: str | None = None
    executor_token: str | None = None


class V0ExecutionDoneRequest(Message):
    message_type: Literal["V0ExecutionDoneRequest"] = "V0ExecutionDoneRequest"
    job_uuid: str


class V0MachineSpecsRequest(Message):
    """``specs`` is nested once more: ``{"specs": {...}}``."""

    message_type: Literal["V0MachineSpecsRequest"] = "V0MachineSpecsRequest"
    job_uuid: str
    specs: dict[str, JsonValue]


class V0JobFinishedRequest(Message):
    """The result. What follows ``upload_results`` is ours; older peers ignore it.

    * ``image_digest``: ``sha256:...`` of the image that ran, the same on every machine
    * ``output_hashes``: SHA-256 in hex of each regular file below ``/output``, by path below it
    """

    message_type: Literal["V0JobFinishedRequest"] = "V0JobFinishedRequest"
    job_uuid: str
    docker_process_stdout: str
    docker_process_stderr: str
    artifacts: dict[str, str] | None = None
    upload_results: dict[str, str] | None = None
    exit_status: int | None = None
    timed_out: bool | None = None
    notices: list[str] | None = None
    image_digest: str | None = None
    output_hashes: dict[str, str] | None = None

    def to_miner_response(self) -> MinerResponse:
        return MinerResponse.model_validate(self.model_dump(exclude={"message_type", "job_uuid"}))


class V0JobFailedRequest(Message):
    """The job failed through its own doing. Older peers name two fields differently on input."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    message_type: Literal["V0JobFailedRequest"] = "V0JobFailedRequest"
    job_uuid: str
    message: str = Field(default="", validation_alias=AliasChoices("message", "error_detail"))
    reason: FailureReason = Field(
        default=FailureReason.UNKNOWN, validation_alias=AliasChoices("reason", "error_type")
    )
    stage: Stage = Stage.UNKNOWN
    docker_process_exit_status: int | None = None
    docker_process_stdout: str | None = None
    docker_process_stderr: str | None = None
    context: dict[str, JsonValue] | None = None


class V0HordeFailedRequest(Message):
    """The horde failed the job."""

    message_type: Literal["V0HordeFailedRequest"] = "V0HordeFailedRequest"
    job_uuid: str
    reported_by: Participant
    message: str
    reason: HordeFailureReason
    context: dict[str, JsonValue] | None = None


class V0ExecutorFailedRequest(Message):
    """Sent by older executors only; :mod:`.compat` turns it into a horde failure."""

    message_type: Literal["V0ExecutorFailedRequest"] = "V0ExecutorFailedRequest"
    job_uuid: str


class V0StreamingJobNotReadyRequest(Message):
    """Sent by older executors only; :mod:`.compat` turns it into a failure."""

    message_type: Literal["V0StreamingJobNotReadyRequest"] = "V0StreamingJobNotReadyRequest"
    job_uuid: str


class UnauthorizedError(Message):
    """``code``: ``TOKEN_TOO_OLD``, ``UNKNOWN_VALIDATOR`` or ``VALIDATOR_INACTIVE``."""

    message_type: Literal["UnauthorizedError"] = "UnauthorizedError"
    code: str
    details: str = ""


MinerToValidator = Annotated[
    V0ExecutorManifestRequest
    | V0AcceptJobRequest
    | V0DeclineJobRequest
    | V0ExecutorReadyRequest
    | V0VolumesReadyRequest
    | V0StreamingJobReadyRequest
    | V0ExecutionDoneRequest
    | V0MachineSpecsRequest
    | V0JobFinishedRequest
    | V0JobFailedRequest
    | V0HordeFailedRequest
    | V0ExecutorFailedRequest
    | V0StreamingJobNotReadyRequest
    | V0MainHotkeyMessage
    | UnauthorizedError
    | V0JobLogsResponse
    | V0FreeExecutorsRequest
    | GenericError,
    Field(discriminator="message_type"),
]
MINER_TO_VALIDATOR: TypeAdapter[MinerToValidator] = TypeAdapter(MinerToValidator)


R = TypeVar("R", V0InitialJobRequest, V0JobRequest)


def whole_message_bytes(message: dict[str, Any]) -> bytes:
    """What the validator signs of a whole request: the object as sent, less its signature (section 6.3)."""
    rest = {key: value for key, value in message.items() if key != "validator_signature"}
    return json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()


def signed_request(request: R, signer: Signer) -> R:
    """The same request with the validator's signature over the whole of it."""
    data = whole_message_bytes(request.model_dump(mode="json"))
    return request.model_copy(update={"validator_signature": hex_signature(signer, data)})


def frame_is_signed(frame: str, validator_hotkey: str, verifier: Verifier) -> bool | None:
    """Whether a request frame carries its validator's valid signature; None when it carries none."""
    message = json.loads(frame)
    signature = message.get("validator_signature")
    if signature is None:
        return None
    return isinstance(signature, str) and verify_hex(
        verifier, validator_hotkey, whole_message_bytes(message), signature
    )

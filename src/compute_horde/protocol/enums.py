"""Closed vocabularies of the wire. Each maps text that it does not know to ``unknown`` (section 2.7)."""

from enum import StrEnum
from typing import Self


class Lenient(StrEnum):
    """A vocabulary with an ``unknown`` member, to which any other text is mapped."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls("unknown") if isinstance(value, str) else None


class ExecutorClass(StrEnum):
    """What kind of machine a job asks for (section 4.1). An unknown value is an error, not ``unknown``."""

    spin_up_4min__gpu_24gb = "spin_up-4min.gpu-24gb"
    always_on__gpu_24gb = "always_on.gpu-24gb"
    always_on__llm__a6000 = "always_on.llm.a6000"
    always_on__test = "always_on.test"
    always_on__cpu__8c__16gb = "always_on.cpu.8c.16gb"
    always_on__cpu_8c_16gb = "always_on.cpu.8c.16gb"  # the same member under its first name


class JobStatus(Lenient):
    """Names in ``status_history`` and in the validator's status updates.

    ``cancelled`` is ours, shown only to clients that announced it; on WebSockets such a job is ``failed`` with the
    code ``cancelled``. ``queued`` is ours, sent only to peers that announced ``queue``.
    """

    SENT = "sent"
    RECEIVED = "received"
    QUEUED = "queued"
    ACCEPTED = "accepted"
    EXECUTOR_READY = "executor_ready"
    VOLUMES_READY = "volumes_ready"
    STREAMING_READY = "streaming_ready"
    EXECUTION_DONE = "execution_done"
    COMPLETED = "completed"
    REJECTED = "rejected"
    FAILED = "failed"
    HORDE_FAILED = "horde_failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class Participant(Lenient):
    """A role: who rejected a job, who reported a failure."""

    UNKNOWN = "unknown"
    SDK = "sdk"
    FACILITATOR = "facilitator"
    VALIDATOR = "validator"
    MINER = "miner"
    EXECUTOR = "executor"


class RejectionReason(Lenient):
    UNKNOWN = "unknown"
    BUSY = "busy"
    INVALID_SIGNATURE = "invalid_signature"
    NO_MINER_FOR_JOB = "no_miner_for_job"
    VALIDATOR_BLACKLISTED = "validator_blacklisted"
    INVALID_RECEIPT = "invalid_receipt"


class FailureReason(Lenient):
    """Why a job failed through its own doing."""

    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    NONZERO_RETURN_CODE = "nonzero_return_code"
    DOWNLOAD_FAILED = "download_failed"
    UPLOAD_FAILED = "upload_failed"


class Stage(Lenient):
    UNKNOWN = "unknown"
    EXECUTOR_STARTUP = "executor_startup"
    VOLUME_DOWNLOAD = "volume_download"
    STREAMING_STARTUP = "streaming_startup"
    EXECUTION = "execution"
    RESULT_UPLOAD = "result_upload"


class HordeFailureReason(Lenient):
    """Why the horde failed a job that was fine."""

    UNKNOWN = "unknown"
    GENERIC_ERROR = "generic_error"
    UNHANDLED_EXCEPTION = "unhandled_exception"
    UNHANDLED_TIMEOUT = "unhandled_timeout"
    STREAMING_FAILED = "streaming_failed"
    MINER_CONNECTION_FAILED = "miner_connection_failed"
    INITIAL_RESPONSE_TIMED_OUT = "initial_response_timed_out"
    EXECUTOR_READINESS_RESPONSE_TIMED_OUT = "executor_readiness_response_timed_out"
    VOLUMES_TIMED_OUT = "volumes_timed_out"
    STREAMING_JOB_READY_TIMED_OUT = "streaming_job_ready_timed_out"
    EXECUTION_TIMED_OUT = "execution_timed_out"
    FINAL_RESPONSE_TIMED_OUT = "final_response_timed_out"
    EXECUTOR_SPINUP_FAILED = "executor_spinup_failed"
    EXECUTOR_DISCONNECTED = "executor_disconnected"
    SECURITY_CHECK_FAILED = "security_check_failed"


class DockerPreset(StrEnum):
    """``docker_run_options_preset``: whether the container sees the GPUs (section 4.1)."""

    NVIDIA_ALL = "nvidia_all"
    NONE = "none"


class Fault(StrEnum):
    """Whose doing a failure is. Ours: travels in the ``context`` of the wire's failure details."""

    USER = "user"
    MINER = "miner"
    VALIDATOR = "validator"
    FACILITATOR = "facilitator"
    NOBODY = "nobody"

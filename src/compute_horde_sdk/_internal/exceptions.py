"""Every error that leaves the library.

::

    ComputeHordeError
    ├── ComputeHordeValidationError             also ValueError: an argument is wrong; ``field`` names it
    ├── ComputeHordeUnsupportedError            the facilitator, or this installation, cannot do that
    ├── ComputeHordeAuthenticationError         the login or the signature was refused
    ├── ComputeHordeNotFoundError               no such job among yours
    ├── ComputeHordeValidatorNotConnectedError  the named validator is not connected to the facilitator
    ├── ComputeHordeConnectionError             the facilitator could not be reached, or broke off
    │   └── ComputeHordeTimeoutError            also TimeoutError: it did not answer in time
    ├── ComputeHordeResponseError               an answer that makes no sense here; ``status_code`` has its status
    ├── ComputeHordeJobTimeoutError             also TimeoutError: ``wait(timeout=...)`` ran out; the job goes on
    └── ComputeHordeJobError                    why a job failed: ``job.error``; ``wait_for_streaming`` raises it
        ├── ComputeHordeJobRejection            nobody took the job
        ├── ComputeHordeJobFailure              the job itself failed, or was cancelled
        └── ComputeHordeHordeFailure            the horde failed a job that was fine

All of them can be copied and pickled.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from compute_horde.protocol.enums import Fault, Stage

if TYPE_CHECKING:  # only a type
    from pydantic import JsonValue


class ComputeHordeError(Exception):
    """Base of the library's errors: each one is data.

    * ``code``: stable, lower_snake_case; what a program branches on
    * ``message``: one sentence for a person
    * ``hint``: what to do about it
    * ``retryable``: whether the same call can succeed when simply made again
    * ``stage``, ``fault``: where in a job's life and whose doing, where that applies
    """

    default_code: ClassVar[str] = "compute_horde_error"
    default_hint: ClassVar[str] = ""
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
        stage: Stage | None = None,
        fault: Fault | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = self.default_hint if hint is None else hint
        self.retryable = self.default_retryable if retryable is None else retryable
        self.stage = stage
        self.fault = fault

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __repr__(self) -> str:
        told = {"code": self.code, **self._told(), "message": self.message}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in told.items())})"

    def _told(self) -> dict[str, object]:
        """What ``repr`` shows between code and message."""
        return {}


class ComputeHordeValidationError(ComputeHordeError, ValueError):
    """An argument is wrong. ``field``: its name, with the key or index where there is one."""

    default_code = "invalid_argument"

    def __init__(self, message: str = "", *, field: str = "", code: str | None = None, hint: str = "") -> None:
        super().__init__(message, code=code, hint=hint, fault=Fault.USER)
        self.field = field

    def _told(self) -> dict[str, object]:
        return {"field": self.field}


class ComputeHordeUnsupportedError(ComputeHordeError):
    """Something that the facilitator does not offer, or that needs an extra which is not installed.

    Nothing was sent.
    """

    default_code = "unsupported"


class ComputeHordeAuthenticationError(ComputeHordeError):
    """The facilitator refused the login, the token or the signature."""

    default_code = "authentication_failed"
    default_hint = "Check that the facilitator allows this hotkey, and that this machine's clock is right."


class ComputeHordeNotFoundError(ComputeHordeError):
    """The facilitator knows no such job of this hotkey."""

    default_code = "not_found"


class ComputeHordeValidatorNotConnectedError(ComputeHordeError):
    """The validator that the job names has no connection to the facilitator."""

    default_code = "validator_not_connected"
    default_hint = "Check compute_horde_validator_hotkey, and that this validator is running."
    default_retryable = True


class ComputeHordeConnectionError(ComputeHordeError):
    """The facilitator could not be reached, or the connection broke."""

    default_code = "connection_failed"
    default_hint = "Check facilitator_url and the network, then try again."
    default_retryable = True


class ComputeHordeTimeoutError(ComputeHordeConnectionError, TimeoutError):
    """The facilitator did not answer in time."""

    default_code = "request_timeout"


class ComputeHordeResponseError(ComputeHordeError):
    """The facilitator refused the request, failed, or answered with something unreadable."""

    default_code = "unexpected_response"

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int | None = None,
        code: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
        stage: Stage | None = None,
        fault: Fault | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint, retryable=retryable, stage=stage, fault=fault)
        self.status_code = status_code

    def _told(self) -> dict[str, object]:
        return {"status_code": self.status_code}


class ComputeHordeJobTimeoutError(ComputeHordeError, TimeoutError):
    """``wait`` ran out of time. The job itself goes on; wait again, or look at it later."""

    default_code = "wait_timeout"
    default_hint = "The job goes on; wait again, or fetch it later by its uuid."
    default_retryable = True


class ComputeHordeJobError(ComputeHordeError):
    """Why a job failed: the value of ``job.error``. ``raise job.error`` works.

    * ``reason``: the network's own word (PROTOCOL.md 2.7), such as ``download_failed``
    * ``reported_by``: the participant that said so, where the network tells
    * ``context``: further figures from whoever reported it
    * ``exit_code``: the container's, where it ran to its end
    """

    default_code = "job_failed"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
        stage: Stage | None = None,
        fault: Fault | None = None,
        reason: str = "unknown",
        reported_by: str | None = None,
        context: "Mapping[str, JsonValue] | None" = None,
        exit_code: int | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint, retryable=retryable, stage=stage, fault=fault)
        self.reason = reason
        self.reported_by = reported_by
        self.context: dict[str, JsonValue] = dict(context or {})
        self.exit_code = exit_code

    def _told(self) -> dict[str, object]:
        return {"stage": _word(self.stage), "fault": _word(self.fault)}


class ComputeHordeJobRejection(ComputeHordeJobError):  # noqa: N818 - the name that programs import
    """Nobody took the job. ``reason``: such as ``busy`` or ``no_miner_for_job``."""


class ComputeHordeJobFailure(ComputeHordeJobError):  # noqa: N818 - the name that programs import
    """The job itself failed. ``reason``: such as ``timeout`` or ``nonzero_return_code``."""


class ComputeHordeHordeFailure(ComputeHordeJobError):  # noqa: N818 - the name that programs import
    """The horde failed a job that was fine. ``reported_by``: the participant that said so."""


def _word(value: Stage | Fault | None) -> str | None:
    return None if value is None else value.value

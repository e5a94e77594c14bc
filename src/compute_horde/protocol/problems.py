"""A failure as data: the same object in every service, on every wire, and out of the client."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from compute_horde.protocol.base import Message
from compute_horde.protocol.enums import Fault, JobStatus, Stage

CONTEXT_KEY = "problem"
"""Where a problem travels inside the free ``context`` object of the network's failure details."""

NOT_STORED = "job_not_stored"
"""Its ``code`` where a miner declines a job only because its database takes nothing now."""


class Problem(Message):
    """One failure.

    * ``code``: stable, lower_snake_case; what a program branches on
    * ``message``: one sentence for a person
    * ``stage``: where in the job's life (section 2.7)
    * ``fault``: whose doing; a user's fault is never a miner's incident
    * ``retryable``: whether the same job can succeed when simply sent again
    * ``hint``: what to do about it
    * ``details``: figures and names, never secrets
    """

    code: str
    message: str
    stage: Stage = Stage.UNKNOWN
    fault: Fault = Fault.NOBODY
    retryable: bool = False
    hint: str = ""
    details: dict[str, JsonValue] = Field(default_factory=dict)

    def to_context(self) -> dict[str, JsonValue]:
        """The ``context`` value that carries this problem to a peer; older peers keep it as free text."""
        return {CONTEXT_KEY: self.model_dump(mode="json", exclude={"message"})}

    @classmethod
    def from_context(cls, context: Mapping[str, Any] | None, message: str) -> "Problem | None":
        """The problem in a ``context``, or None where an older peer (or a broken one) put none."""
        data = (context or {}).get(CONTEXT_KEY)
        if not isinstance(data, dict):
            return None
        try:
            return cls.model_validate({**data, "message": message})
        except ValidationError:
            return None


def is_worth_another_attempt(found: Problem | None, status: JobStatus) -> bool:
    """Whether a job that ended like this may end well elsewhere; its user's own failure never does.

    ``found`` is None where an older peer says no more than the status: then it is worth one if the horde failed.
    """
    if status not in (JobStatus.FAILED, JobStatus.HORDE_FAILED, JobStatus.REJECTED):
        return False
    if found is None:
        return status is JobStatus.HORDE_FAILED
    return found.retryable and found.fault is not Fault.USER

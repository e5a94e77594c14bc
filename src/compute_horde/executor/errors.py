"""How a job ends badly inside the executor: one exception that carries the problem as data."""

from pydantic import JsonValue

from compute_horde.lifecycle.failures import problem
from compute_horde.protocol.enums import Stage
from compute_horde.protocol.problems import Problem


class JobFailure(Exception):  # noqa: N818 - the domain's word
    """The job cannot go on. The problem's message never holds a query string, a token or a value of ``env``."""

    def __init__(self, found: Problem, exit_status: int | None = None) -> None:
        self.problem, self.exit_status = found, exit_status
        super().__init__(found.message)


def failure(
    code: str, message: str, *, stage: Stage | None = None, exit_status: int | None = None, **details: JsonValue
) -> JobFailure:
    """A :class:`JobFailure` of a code of :mod:`compute_horde.lifecycle.failures`."""
    return JobFailure(problem(code, message, stage, **details), exit_status)

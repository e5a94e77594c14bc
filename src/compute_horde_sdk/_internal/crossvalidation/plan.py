"""Whether a job is cross-validated, and with what. Decided once, when it is created."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from compute_horde_sdk._internal.crossvalidation.comparison import Comparator
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError


@dataclass(frozen=True)
class CrossValidation:
    """How jobs are cross-validated: an argument of the client, or a field of a spec, which then wins.

    * ``rate``: the share of jobs that is repeated on the trusted miner, 0 to 1; each job is decided by lot.
      ``run_cross_validation=True`` on a job counts as 1
    * ``comparator``: decides whether two results agree; :func:`byte_exact` when None
    * ``report``: whether a mismatch is reported to the validator, which then punishes the miner. Leave it on only
      for jobs whose results are the same every time, as far as the comparator looks

    A plan without a ``comparator`` compares byte by byte, which a job that uses random numbers or parallel
    floating point arithmetic does not survive on an honest miner either.

    :raises ComputeHordeValidationError: one of them is not usable.
    """

    rate: float = 1.0
    comparator: Comparator | None = None
    report: bool = True

    def __post_init__(self) -> None:
        if not _is_share(self.rate):
            raise ComputeHordeValidationError("rate must be a number from 0 to 1", field="rate")
        if self.comparator is not None and not callable(self.comparator):
            raise ComputeHordeValidationError(
                "comparator must be a function of two results, or None",
                field="comparator",
                hint="Use byte_exact(), numeric() or ignoring(), or write one.",
            )
        if not _is_flag(self.report):
            raise ComputeHordeValidationError("report must be True or False", field="report")


class Asked(NamedTuple):
    """What a call of ``create_job`` says about it. ``job``: of the spec; ``client``: of the client."""

    run_cross_validation: bool
    on_trusted_miner: bool
    streaming: bool
    job: CrossValidation | None
    client: CrossValidation | None


def plan_of(asked: Asked, draw: Callable[[], float]) -> CrossValidation | None:
    """The plan for one job, or None when it is not cross-validated. ``draw``: evenly from [0, 1).

    Jobs that already run on the trusted miner, and streaming ones, whose visitors cannot be repeated, never are.

    :raises ComputeHordeValidationError: asked for by name, and not possible.
    """
    check_plan(asked.job)
    plan = asked.job or asked.client
    if not _is_flag(asked.run_cross_validation):
        _refuse("must be True or False")
    if asked.run_cross_validation:
        if asked.on_trusted_miner:
            _refuse("makes no sense for a job that itself runs on the trusted miner")
        if asked.streaming:
            _refuse("is not possible for a streaming job, whose visitors cannot be repeated")
        return plan or CrossValidation()
    if plan is None or asked.on_trusted_miner or asked.streaming or draw() >= plan.rate:
        return None
    return plan


def check_plan(value: object) -> None:
    """:raises ComputeHordeValidationError: neither a plan nor None."""
    if value is not None and not isinstance(value, CrossValidation):
        field = "cross_validation"
        raise ComputeHordeValidationError(f"{field} must be a CrossValidation or None", field=field)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1  # so no NaN


def _refuse(why: str) -> None:
    field = "run_cross_validation"
    raise ComputeHordeValidationError(f"{field} {why}", field=field)

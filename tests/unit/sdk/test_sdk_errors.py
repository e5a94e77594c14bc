"""One tree of errors, each of them data that can be copied, pickled and read."""

import copy
import pickle

import pytest

from compute_horde.protocol.enums import Fault, Stage
from compute_horde_sdk.v1 import (
    ComputeHordeAuthenticationError,
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeHordeFailure,
    ComputeHordeJobError,
    ComputeHordeJobFailure,
    ComputeHordeJobRejection,
    ComputeHordeJobTimeoutError,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeTimeoutError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
    ComputeHordeValidatorNotConnectedError,
)

PLAIN = [
    ComputeHordeError,
    ComputeHordeAuthenticationError,
    ComputeHordeConnectionError,
    ComputeHordeJobTimeoutError,
    ComputeHordeNotFoundError,
    ComputeHordeTimeoutError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidatorNotConnectedError,
]
FAILURES = [ComputeHordeJobError, ComputeHordeJobRejection, ComputeHordeJobFailure, ComputeHordeHordeFailure]

ERRORS: list[ComputeHordeError] = [
    *[
        kind("what", code="c", hint="h", retryable=True, stage=Stage.EXECUTION, fault=Fault.MINER)
        for kind in PLAIN
    ],
    *[
        kind("what", code="c", stage=Stage.EXECUTION, reason="timeout", reported_by="miner", context={"a": [1]})
        for kind in FAILURES
    ],
    ComputeHordeValidationError("what", field="args[1]", hint="h"),
    ComputeHordeResponseError("what", status_code=418),
    ComputeHordeJobError("what", exit_code=3),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_they_survive_copying_and_pickling(error: ComputeHordeError) -> None:
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert vars(twin) == vars(error)
        assert (str(twin), repr(twin), twin.args) == (str(error), repr(error), error.args)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_each_is_data(error: ComputeHordeError) -> None:
    assert isinstance(error.code, str)
    assert error.message == "what"
    assert isinstance(error.hint, str)
    assert isinstance(error.retryable, bool)
    assert error.stage is None or isinstance(error.stage, Stage)
    assert error.fault is None or isinstance(error.fault, Fault)
    assert "what" in repr(error)
    assert type(error).__name__ in repr(error)


@pytest.mark.parametrize("kind", [*PLAIN, *FAILURES, ComputeHordeValidationError, ComputeHordeResponseError])
def test_each_can_be_made_and_caught_as_before(kind: type[ComputeHordeError]) -> None:
    with pytest.raises(ComputeHordeError, match="what"):
        raise kind("what")
    assert kind().message == ""


def test_what_repr_tells() -> None:
    assert repr(ComputeHordeNotFoundError("no")) == "ComputeHordeNotFoundError(code='not_found', message='no')"
    wrong = ComputeHordeValidationError("is wrong", field="env")
    assert repr(wrong) == "ComputeHordeValidationError(code='invalid_argument', field='env', message='is wrong')"
    failure = ComputeHordeJobFailure("exit 1", code="nonzero_exit", stage=Stage.EXECUTION, fault=Fault.USER)
    assert repr(failure) == (
        "ComputeHordeJobFailure(code='nonzero_exit', stage='execution', fault='user', message='exit 1')"
    )
    assert "status_code=418" in repr(ComputeHordeResponseError(status_code=418))
    assert "stage=None" in repr(ComputeHordeJobError("x"))


def test_the_kinds_of_failed_jobs() -> None:
    for kind in FAILURES[1:]:
        assert issubclass(kind, ComputeHordeJobError)
    failure = ComputeHordeHordeFailure(
        "gone", reason="executor_disconnected", reported_by="miner", context={"a": 1}
    )
    assert (failure.reason, failure.message, failure.reported_by) == ("executor_disconnected", "gone", "miner")
    assert failure.context == {"a": 1}

"""Verdicts: who is accused, and above all who is not. And the evidence that goes with them."""

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_horde.protocol.enums import Fault
from compute_horde_sdk._internal.crossvalidation.comparison import Comparison, Difference
from compute_horde_sdk._internal.crossvalidation.evidence import (
    MAX_REPORT_BYTES,
    CrossValidationEvidence,
    evidence_of,
)
from compute_horde_sdk._internal.crossvalidation.plan import Asked, CrossValidation, plan_of
from compute_horde_sdk._internal.crossvalidation.verdict import (
    CrossValidationReport,
    CrossValidationState,
    Ended,
    Finding,
    after_comparing,
    before_comparing,
    unusable,
)
from compute_horde_sdk._internal.exceptions import ComputeHordeJobError, ComputeHordeValidationError
from compute_horde_sdk._internal.models import ComputeHordeJobResult, ComputeHordeJobStatus

MATCH, MISMATCH = CrossValidationState.MATCH, CrossValidationState.MISMATCH
INCONCLUSIVE = CrossValidationState.INCONCLUSIVE


def completed(**members: Any) -> Ended:
    return Ended("u", ComputeHordeJobStatus.COMPLETED, ComputeHordeJobResult(**members))


def ended(status: str, code: str = "x", fault: Fault = Fault.USER, exit_code: int | None = None) -> Ended:
    error = ComputeHordeJobError("said", code=code, fault=fault)
    return Ended("u", ComputeHordeJobStatus(status), ComputeHordeJobResult(exit_code=exit_code), error)


def exited(exit_code: int) -> Ended:
    return ended("failed", "nonzero_exit", exit_code=exit_code)


def state(finding: Finding | None) -> CrossValidationState | None:
    return None if finding is None else finding.state


@pytest.mark.parametrize(
    "own",
    [
        ended("horde_failed", fault=Fault.MINER),
        ended("rejected", fault=Fault.NOBODY),
        ended("cancelled", "cancelled", Fault.USER),
        ended("failed", fault=Fault.MINER),
        Ended("u", ComputeHordeJobStatus.FAILED, ComputeHordeJobResult()),
    ],
)
def test_a_job_that_the_horde_failed_says_nothing(own: Ended) -> None:
    finding = unusable(own)
    assert finding is not None
    assert finding.state is INCONCLUSIVE
    assert own.status.value in finding.reason


@pytest.mark.parametrize("own", [completed(), exited(1)])
def test_a_job_that_ended_by_itself_is_worth_comparing(own: Ended) -> None:
    assert unusable(own) is None


@pytest.mark.parametrize(
    "trusted",
    [exited(1), ended("horde_failed"), ended("rejected"), ended("cancelled"), ended("failed", "timeout")],
)
def test_a_trusted_run_that_fails_accuses_nobody(trusted: Ended) -> None:
    finding = before_comparing(completed(), trusted)
    assert state(finding) is INCONCLUSIVE
    assert finding is not None
    assert trusted.status.value in finding.reason


@pytest.mark.parametrize(
    ("own", "trusted", "expected"),
    [
        (exited(1), exited(1), MATCH),
        (exited(1), exited(2), INCONCLUSIVE),
        (exited(1), ended("failed", "execution_timeout", exit_code=1), INCONCLUSIVE),
        (exited(1), ended("failed", "nonzero_exit", Fault.MINER, 1), INCONCLUSIVE),
        (exited(1), ended("horde_failed", fault=Fault.VALIDATOR), INCONCLUSIVE),
        (exited(1), completed(), MISMATCH),
        (exited(137), completed(), INCONCLUSIVE),
        (exited(0), completed(), INCONCLUSIVE),
        (ended("failed", "nonzero_exit"), completed(), INCONCLUSIVE),
        (ended("failed", "upload_failed"), completed(), INCONCLUSIVE),
        (ended("failed", "download_failed"), completed(), INCONCLUSIVE),
        (ended("failed", "execution_timeout"), completed(), INCONCLUSIVE),
        (ended("failed", "out_of_memory", exit_code=137), completed(), INCONCLUSIVE),
        (ended("failed", "execution_timeout"), ended("failed", "execution_timeout"), MATCH),
    ],
)
def test_a_job_that_failed_by_itself(own: Ended, trusted: Ended, expected: CrossValidationState) -> None:
    finding = before_comparing(own, trusted)
    assert state(finding) is expected
    assert finding is not None
    assert bool(finding.differences) is (expected is MISMATCH)


def test_images_have_to_be_the_same_where_both_are_known() -> None:
    one, other, silent = (completed(image_digest=digest) for digest in ("sha256:1", "sha256:2", None))
    assert state(before_comparing(one, other)) is INCONCLUSIVE
    assert before_comparing(one, one) is None
    assert before_comparing(one, silent) is None
    assert before_comparing(silent, other) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (True, MATCH),
        ([], MATCH),
        (Comparison(), MATCH),
        (False, MISMATCH),
        ([Difference("x", "/p")], MISMATCH),
        (Comparison((Difference("x"),), ("y",)), MISMATCH),
        (Comparison((), ("y", "z")), INCONCLUSIVE),
    ],
)
def test_what_follows_from_an_answer(answer: Any, expected: CrossValidationState) -> None:
    own, trusted = completed(output_hashes={}), completed(output_hashes={})
    assert after_comparing(answer, own, trusted, unseen_outputs=True).state is expected


def test_a_bare_no_is_explained_by_the_files() -> None:
    own, trusted = completed(artifacts={"/a": b"1"}), completed(artifacts={"/a": b"2"})
    finding = after_comparing(False, own, trusted, unseen_outputs=False)
    assert finding.reason == "the results differ: artifact '/a'"
    same = after_comparing(False, own, own, unseen_outputs=False)
    assert same.differences == (Difference("result"),)
    assert after_comparing([Difference("x")] * 3, own, own, unseen_outputs=False).reason.endswith("x, and 2 more")


def test_uploads_that_nobody_saw_are_no_match() -> None:
    silent, told = completed(), completed(output_hashes={})
    for sides in ((silent, silent), (silent, told), (told, silent)):
        assert after_comparing(True, *sides, unseen_outputs=True).state is INCONCLUSIVE
        assert after_comparing(True, *sides, unseen_outputs=False).state is MATCH


@pytest.mark.parametrize("side", [0, 1])
def test_a_time_limit_may_explain_a_difference_but_no_agreement(side: int) -> None:
    sides = completed(timed_out=side == 0), completed(timed_out=side == 1)
    assert after_comparing(True, *sides, unseen_outputs=False).state is MATCH
    finding = after_comparing([Difference("x")], *sides, unseen_outputs=False)
    assert finding.state is INCONCLUSIVE
    assert finding.differences


# evidence


def evidence(own: ComputeHordeJobResult, trusted: ComputeHordeJobResult, **more: Any) -> CrossValidationEvidence:
    sides = [
        evidence_of(name, ComputeHordeJobStatus.COMPLETED, side) for name, side in (("o", own), ("t", trusted))
    ]
    return CrossValidationEvidence(sides[0], sides[1], **more)


def test_evidence_as_json() -> None:
    own = ComputeHordeJobResult("out", "err\ud800", {"/a": b""}, {}, 0, image_digest="sha256:1")
    trusted = ComputeHordeJobResult(output_hashes={"/output/a": "ab"})
    shown = evidence(own, trusted, comparator="mine", differences=(Difference("artifact", "/a", "1"),)).to_json()
    empty = sha256().hexdigest()
    assert json.loads(json.dumps(shown)) == {
        "comparator": "mine",
        "difference_count": 1,
        "differences": [{"what": "artifact", "path": "/a", "own": "1", "trusted": None}],
        "not_compared": [],
        "own": {
            "job_uuid": "o",
            "status": "completed",
            "exit_code": 0,
            "image_digest": "sha256:1",
            "stdout": {"sha256": sha256(b"out").hexdigest(), "size": 3},
            "stderr": {"sha256": sha256(b"err\xed\xa0\x80").hexdigest(), "size": 6},
            "artifact_count": 1,
            "artifacts": {"/a": {"sha256": empty, "size": 0}},
            "output_count": None,
            "outputs": None,
        },
        "trusted": {
            "job_uuid": "t",
            "status": "completed",
            "exit_code": None,
            "image_digest": None,
            "stdout": {"sha256": empty, "size": 0},
            "stderr": {"sha256": empty, "size": 0},
            "artifact_count": 0,
            "artifacts": {},
            "output_count": 1,
            "outputs": {"/output/a": "ab"},
        },
    }


NASTY = st.text(st.characters(), max_size=600)


@settings(deadline=None)
@given(st.lists(st.tuples(NASTY, NASTY, NASTY), max_size=5), st.integers(1, 40), NASTY)
def test_a_report_stays_small_whatever_a_miner_names(
    named: list[tuple[str, str, str]], times: int, text: str
) -> None:
    artifacts = {f"{path}{number}": b"" for path, _, _ in named for number in range(times)}
    hashes = {f"{path}{number}": value for path, value, _ in named for number in range(times)}
    own = ComputeHordeJobResult(artifacts=artifacts, output_hashes=hashes, image_digest=text)
    differences = tuple(Difference("artifact", path, value, text) for path, value, text in named) * times
    found = evidence(own, ComputeHordeJobResult(), differences=differences, not_compared=(text,) * times)
    shown = found.to_json(MAX_REPORT_BYTES)
    written = json.dumps(shown)
    assert len(written) <= MAX_REPORT_BYTES
    assert shown["difference_count"] == len(differences)
    json.dumps(found.to_json(), ensure_ascii=False).encode()
    json.dumps(shown, ensure_ascii=False).encode()
    assert "\\u0000" not in written


def test_a_report_names_fewer_where_a_hundred_are_too_much() -> None:
    differences = tuple(Difference("artifact", f"/{number}" + "\U0001f600" * 300) for number in range(200))
    found = evidence(ComputeHordeJobResult(), ComputeHordeJobResult(), differences=differences)
    shown = found.to_json(MAX_REPORT_BYTES)
    assert isinstance(shown["differences"], list)
    assert 0 < len(shown["differences"]) < 100
    assert shown["difference_count"] == 200


def test_the_files_that_differ_come_first_and_all_else_is_counted() -> None:
    own = ComputeHordeJobResult(artifacts={f"/a/{number}": b"x" for number in range(1000)})
    found = evidence(own, own, differences=(Difference("artifact", "/a/999"),)).to_json(MAX_REPORT_BYTES)
    side = found["own"]
    assert isinstance(side, dict)
    assert side["artifact_count"] == 1000
    assert isinstance(side["artifacts"], dict)
    assert next(iter(side["artifacts"])) == "/a/999"
    assert len(side["artifacts"]) == 100


def test_a_report_shows_itself_in_one_line() -> None:
    assert repr(CrossValidationReport(MATCH, "t", "they agree")) == (
        "CrossValidationReport(state='match', trusted_job_uuid='t', reason='they agree', reported=False)"
    )


# the plan


def asked(**members: Any) -> Asked:
    defaults: dict[str, Any] = {
        "run_cross_validation": False,
        "on_trusted_miner": False,
        "streaming": False,
        "job": None,
        "client": None,
    }
    return Asked(**{**defaults, **members})


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_the_rate_is_the_share_of_draws(rate: float, drawn: float) -> None:
    plan = CrossValidation(rate)
    assert plan_of(asked(client=plan), lambda: drawn) is (plan if drawn < rate else None)


def test_whose_plan_counts() -> None:
    never, always = CrossValidation(0.0), CrossValidation()
    assert plan_of(asked(), lambda: 0.0) is None
    assert plan_of(asked(job=never, client=always), lambda: 0.0) is None
    assert plan_of(asked(job=always, client=never), lambda: 0.9) is always
    assert plan_of(asked(run_cross_validation=True), lambda: 0.9) == always
    assert plan_of(asked(run_cross_validation=True, client=never), lambda: 0.9) is never


@pytest.mark.parametrize("kind", ["on_trusted_miner", "streaming"])
def test_jobs_that_cannot_be_repeated(kind: str) -> None:
    assert plan_of(asked(**{kind: True, "client": CrossValidation()}), lambda: 0.0) is None
    with pytest.raises(ComputeHordeValidationError) as caught:
        plan_of(asked(**{kind: True, "run_cross_validation": True}), lambda: 0.0)
    assert caught.value.field == "run_cross_validation"


@pytest.mark.parametrize(
    ("member", "value", "field"),
    [("run_cross_validation", 1, "run_cross_validation"), ("job", 0.5, "cross_validation")],
)
def test_what_is_asked_is_checked(member: str, value: Any, field: str) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        plan_of(asked(**{member: value}), lambda: 0.0)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("rate", wrong) for wrong in (-0.1, 1.1, float("nan"), float("inf"), True, "1")),
        ("comparator", "byte_exact"),
        ("report", 1),
    ],
)
def test_plans_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        CrossValidation(**{field: value})
    assert caught.value.field == field

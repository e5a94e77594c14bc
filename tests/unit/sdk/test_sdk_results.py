"""From the facilitator's job object to status, result and error."""

import base64
import datetime as dt
import pickle
from typing import Any

import pytest

from compute_horde.protocol.enums import Fault, Stage
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.sdk_facilitator import Job
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wire.reading import snapshot_of
from compute_horde_sdk.v1 import (
    ComputeHordeJob,
    ComputeHordeJobError,
    ComputeHordeJobResult,
    ComputeHordeJobStatus,
)

NOW = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


def job(*history: tuple[str, dict[str, Any]], **fields: Any) -> ComputeHordeJob:
    entries = [{"status": status, "metadata": metadata, "created_at": NOW} for status, metadata in history]
    wire = Job.model_validate(
        {
            "uuid": "u",
            "executor_class": "always_on.test",
            "docker_image": "a",
            "created_at": NOW,
            "status_history": entries,
            **fields,
        }
    )
    return ComputeHordeJob(FakeFacilitator().client(), snapshot_of(wire))


def failed(**details: Any) -> ComputeHordeJob:
    given = {"reason": "unknown", "stage": "unknown", "message": "it broke", **details}
    return job(("sent", {}), ("failed", {"job_failure_details": given}))


def error_of(found: ComputeHordeJob) -> ComputeHordeJobError:
    assert found.error is not None
    return found.error


def test_a_completed_job() -> None:
    found = job(
        ("sent", {}),
        (
            "completed",
            {
                "miner_response": {
                    "docker_process_stdout": "out",
                    "docker_process_stderr": "err",
                    "exit_status": 0,
                    "timed_out": True,
                    "notices": ["stdout was cut"],
                }
            },
        ),
        stdout="out",
        stderr="err",
        artifacts={"/artifacts/a": base64.b64encode(b"\0a").decode(), "/artifacts/b": "!!"},
        upload_results={"x/y.txt": '{"headers": {"etag": "1"}, "body": "ok"}', "z": "not json"},
    )
    result = found.result
    assert result is not None
    assert found.status.is_successful()
    assert found.error is None
    assert (result.stdout, result.stderr, result.exit_code, result.timed_out) == ("out", "err", 0, True)
    assert result.artifacts == {"/artifacts/a": b"\0a"}
    assert list(result.upload_results) == ["/output/x/y.txt"]
    assert result.upload_results["/output/x/y.txt"].headers == {"etag": "1"}
    assert result.upload_results["/output/x/y.txt"].body == "ok"
    assert len(result.notices) == 3
    assert "'/artifacts/b'" in result.notices[1]
    assert "'/output/z'" in result.notices[2]


def test_a_completed_job_of_an_older_horde() -> None:
    found = job(("completed", {}), stdout="out")
    assert found.result == ComputeHordeJobResult(stdout="out")


def test_a_failed_job_keeps_its_output() -> None:
    found = failed(
        reason="nonzero_return_code",
        stage="execution",
        docker_process_exit_status=3,
        docker_process_stdout="o",
        docker_process_stderr="e",
    )
    assert found.result == ComputeHordeJobResult(stdout="o", stderr="e", exit_code=3)
    error = error_of(found)
    assert (error.code, error.stage, error.fault, error.retryable) == (
        "nonzero_exit",
        Stage.EXECUTION,
        Fault.USER,
        False,
    )
    assert (error.exit_code, error.reason, error.message) == (3, "nonzero_return_code", "it broke")
    assert error.hint
    assert "status='failed'" in repr(found)
    assert "error='nonzero_exit'" in repr(found)
    assert "nonzero_exit" in repr(error)


@pytest.mark.parametrize(
    ("reason", "stage", "code"),
    [
        ("timeout", "volume_download", "download_timeout"),
        ("timeout", "execution", "execution_timeout"),
        ("timeout", "result_upload", "upload_timeout"),
        ("timeout", "something new", "timeout"),
        ("download_failed", "volume_download", "download_failed"),
        ("upload_failed", "result_upload", "upload_failed"),
        ("a new word", "execution", "job_failed"),
    ],
)
def test_codes_for_what_an_older_horde_tells(reason: str, stage: str, code: str) -> None:
    found = failed(reason=reason, stage=stage)
    assert error_of(found).code == code
    assert found.result is not None
    assert found.result.timed_out is (code == "execution_timeout")


def test_our_hordes_own_account_comes_first() -> None:
    problem = Problem(
        code="volume_zip_unsafe",
        message="m",
        stage=Stage.VOLUME_DOWNLOAD,
        fault=Fault.USER,
        hint="do this",
        details={"entry": "../x"},
    )
    error = error_of(failed(reason="download_failed", context=problem.to_context()))
    assert (error.code, error.stage, error.hint) == ("volume_zip_unsafe", Stage.VOLUME_DOWNLOAD, "do this")
    assert str(error) == "it broke (do this)"
    broken = error_of(failed(reason="download_failed", context={"problem": {"code": 3}}))
    assert broken.code == "download_failed"


@pytest.mark.parametrize("status", ["failed", "horde_failed"])
@pytest.mark.parametrize(
    ("reporter", "fault"),
    [("miner", "miner"), ("validator", "validator"), ("executor", "miner"), ("new", "nobody")],
)
def test_a_failure_of_the_horde(status: str, reporter: str, fault: str) -> None:
    details = {"reported_by": reporter, "reason": "executor_spinup_failed", "message": "m", "context": {"a": 1}}
    found = job((status, {"horde_failure_details": details}))
    error = error_of(found)
    assert (error.code, error.fault, error.stage, error.retryable) == (
        "executor_spinup_failed",
        fault,
        Stage.EXECUTOR_STARTUP,
        True,
    )
    assert error.context == {"a": 1}
    assert found.result == ComputeHordeJobResult()


@pytest.mark.parametrize(("reason", "retryable"), [("busy", True), ("invalid_signature", False), ("new", True)])
def test_a_rejection(reason: str, retryable: bool) -> None:
    details = {"rejected_by": "miner", "reason": reason, "message": ""}
    error = error_of(job(("rejected", {"job_rejection_details": details})))
    assert (error.retryable, error.reported_by) == (retryable, "miner")
    assert error.message


@pytest.mark.parametrize("status", ["failed", "horde_failed", "rejected"])
def test_a_failure_without_a_word(status: str) -> None:
    found = job((status, {}))
    assert found.result == ComputeHordeJobResult()
    assert status in error_of(found).message


def test_an_empty_history_does_not_crash() -> None:
    found = job()
    assert (found.status, found.status_history, found.result, found.error) == ("unknown", [], None, None)
    assert job(status="Executor Ready").status == "executor_ready"
    done = job(status="Failed", stdout="o")
    assert (done.status, error_of(done).code) == ("failed", "job_failed")
    assert done.result == ComputeHordeJobResult(stdout="o")


def test_unknown_words_are_safe() -> None:
    found = job(("accepted", {}), ("teleported", {}))
    assert found.status == "accepted"
    assert found.status_history[1].status is ComputeHordeJobStatus.UNKNOWN
    assert job(("teleported", {}), status="Teleported").status.is_in_progress()
    assert job(("completed", {}), ("volumes_ready", {})).status == "completed"


def test_status_questions() -> None:
    status = ComputeHordeJobStatus
    assert {one for one in status if one.is_failed()} == {"failed", "rejected", "horde_failed", "cancelled"}
    assert {one for one in status if not one.is_in_progress()} == status.end_states()
    assert [one for one in status if one.is_streaming_ready()] == ["streaming_ready"]
    assert [one for one in status if one.is_successful()] == ["completed"]
    assert status("completed") is status.COMPLETED
    with pytest.raises(ValueError, match="3"):
        status(3)  # type: ignore[arg-type] # what a caller without types may pass


def test_errors_survive_pickling() -> None:
    error = error_of(failed(reason="upload_failed", context={"a": 1}))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))

"""Enums, paths, labels, problems, and what older peers call things (sections 2.5, 2.7, 4 and 6.4)."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compute_horde.protocol import enums, paths
from compute_horde.protocol.compat.cancelled import disguised, without_disguise
from compute_horde.protocol.compat.executors import executor_failed, streaming_not_ready
from compute_horde.protocol.compat.labels import LABELS
from compute_horde.protocol.details import FailureDetails, StatusMetadata
from compute_horde.protocol.enums import ExecutorClass, FailureReason, Fault, JobStatus, Stage
from compute_horde.protocol.executor_classes import EXECUTOR_CLASSES
from compute_horde.protocol.facilitator_validator import Response
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.sdk_facilitator import Job, JobRequest, iso_utc
from compute_horde.protocol.uploads import SingleFilePutUpload
from compute_horde.protocol.validator_miner import (
    V0ExecutorFailedRequest,
    V0JobFailedRequest,
    V0JobFinishedRequest,
    V0StreamingJobNotReadyRequest,
)
from compute_horde.protocol.volumes import InlineVolume, SingleFileVolume

VOCABULARIES: dict[type[enums.Lenient], str] = {
    enums.Participant: "unknown sdk facilitator validator miner executor",
    enums.RejectionReason: (
        "unknown busy invalid_signature no_miner_for_job validator_blacklisted invalid_receipt"
    ),
    enums.FailureReason: "unknown timeout nonzero_return_code download_failed upload_failed",
    enums.Stage: "unknown executor_startup volume_download streaming_startup execution result_upload",
    enums.HordeFailureReason: (
        "unknown generic_error unhandled_exception unhandled_timeout streaming_failed miner_connection_failed "
        "initial_response_timed_out executor_readiness_response_timed_out volumes_timed_out "
        "streaming_job_ready_timed_out execution_timed_out final_response_timed_out executor_spinup_failed "
        "executor_disconnected security_check_failed"
    ),
    enums.JobStatus: (
        "sent received queued accepted executor_ready volumes_ready streaming_ready execution_done completed "
        "rejected failed horde_failed cancelled unknown"
    ),
}


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda v: v.__name__)
def test_a_vocabulary_has_the_networks_words_and_takes_any_other(vocabulary: type[enums.Lenient]) -> None:
    assert {member.value for member in vocabulary} == set(VOCABULARIES[vocabulary].split())
    assert vocabulary("some day") is vocabulary("unknown")
    with pytest.raises(ValueError, match="7"):
        vocabulary(7)  # type: ignore[arg-type] # what a broken peer could send


def test_an_unknown_executor_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="always_on"):
        ExecutorClass("always_on.quantum")
    assert set(EXECUTOR_CLASSES) == set(ExecutorClass)
    assert EXECUTOR_CLASSES[ExecutorClass.always_on__gpu_24gb].preset is enums.DockerPreset.NVIDIA_ALL
    assert EXECUTOR_CLASSES[ExecutorClass.always_on__test].preset is enums.DockerPreset.NONE


def test_every_status_has_a_label() -> None:
    assert set(LABELS) == set(JobStatus)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "empty"),
        ("a" * 256, "component longer"),
        ("é" * 128, "component longer"),
        ("/".join("a" * 200 for _ in range(21)), "longer than 4096"),
        ("/a", "relative"),
        ("a\\b", "backslash"),
        ("a\0", "NUL"),
        ("a//b", "empty component"),
        ("a/", "empty component"),
        (".", "'.'"),
        ("a/../b", "'..'"),
        ("\ud800", "Unicode"),
    ],
)
def test_an_unsafe_path_is_refused_with_its_reason(path: str, why: str) -> None:
    assert why in (paths.path_problem(path) or "")
    for make in (
        lambda: SingleFileVolume(url="u", relative_path=path),
        lambda: SingleFilePutUpload(url="u", relative_path=path),
    ):
        with pytest.raises(ValidationError):
            make()


def test_inputs_that_unpack_may_name_a_folder_or_the_root() -> None:
    for path in (None, "", "a/", "a/b"):
        assert InlineVolume(contents="", relative_path=path).relative_path == path
    with pytest.raises(ValidationError):
        InlineVolume(contents="", relative_path="../a")


@given(st.text(max_size=40))
def test_a_safe_path_never_leaves_its_folder(path: str) -> None:
    if paths.path_problem(path, allow_trailing_slash=True) is None:
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.removesuffix("/").split("/"))
    if paths.path_problem(path) is None:
        assert paths.path_problem(path, allow_trailing_slash=True) is None


@pytest.mark.parametrize("path", ["/artifacts", "/a/b/", "/volumes", "/home/x"])
def test_an_artifacts_folder_that_can_be_mounted(path: str) -> None:
    assert paths.artifacts_dir_problem(path) is None


@pytest.mark.parametrize(
    "path", ["a", "", "/", "//", "/a/../b", "/a:b", "/volume", "/output/x", "/specs", "/proc/1", "/sys", "/dev/"]
)
def test_an_artifacts_folder_that_cannot_be_mounted(path: str) -> None:
    assert paths.artifacts_dir_problem(path)


def request_with(**changes: Any) -> JobRequest:
    values: dict[str, Any] = {
        "target_validator_hotkey": "5v",
        "docker_image": "a",
        "download_time_limit": 1,
        "execution_time_limit": 1,
        "upload_time_limit": 1,
        "streaming_start_time_limit": 1,
    }
    return JobRequest(**values | changes)


def test_a_job_request_takes_null_artifacts_and_keeps_blanks_in_args() -> None:
    """G3 and G7."""
    job = request_with(artifacts_dir=None, args=[" ", "", "a "])
    assert (job.artifacts_dir, job.args) == ("", [" ", "", "a "])
    assert request_with(artifacts_dir="/artifacts", env={"A": "1"}).artifacts_dir == "/artifacts"


@pytest.mark.parametrize(
    "changes",
    [
        {"docker_image": ""},
        {"docker_image": " a"},
        {"docker_image": "a b"},
        {"args": ["a\0"]},
        {"env": {"": "1"}},
        {"env": {"A=": "1"}},
        {"env": {"A\0": "1"}},
        {"env": {"A": "\0"}},
        {"artifacts_dir": "relative"},
        {"download_time_limit": -1},
        {"execution_time_limit": "1"},
        {"executor_class": "none"},
    ],
)
def test_a_bad_job_request_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request_with(**changes)


def test_times_are_utc_with_microseconds() -> None:
    moment = dt.datetime(2025, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert iso_utc(moment) == "2025-01-01T00:00:00.000000Z"
    job = Job(uuid="u", executor_class="c", docker_image="i", created_at=moment)
    assert '"last_update":null' in job.to_frame()


PROBLEM = Problem(code="x", message="m", stage=Stage.EXECUTION, fault=Fault.USER, hint="h", details={"n": 1})


def test_a_problem_survives_the_wire() -> None:
    assert Problem.from_context({"other": 1, **PROBLEM.to_context()}, "m") == PROBLEM


@pytest.mark.parametrize("context", [None, {}, {"problem": "text"}, {"problem": {"fault": "weather"}}])
def test_a_context_without_a_problem_has_none(context: dict[str, Any] | None) -> None:
    assert Problem.from_context(context, "m") is None


def test_older_executors_are_understood() -> None:
    horde = executor_failed(V0ExecutorFailedRequest(job_uuid="u"))
    assert (horde.reason, horde.reported_by) == (
        enums.HordeFailureReason.GENERIC_ERROR,
        enums.Participant.EXECUTOR,
    )
    assert streaming_not_ready(V0StreamingJobNotReadyRequest(job_uuid="u")).stage is Stage.STREAMING_STARTUP
    old = V0JobFailedRequest.model_validate({"job_uuid": "u", "error_detail": "d", "error_type": "timeout"})
    assert (old.message, old.reason) == ("d", enums.FailureReason.TIMEOUT)


def test_a_response_carries_its_error_and_a_result_its_answer() -> None:
    refused = Response.error("job.not_found", "no such job", "look")
    assert [(e.type, e.msg, e.help) for e in refused.errors] == [("job.not_found", "no such job", "look")]
    done = V0JobFinishedRequest(job_uuid="u", docker_process_stdout="o", docker_process_stderr="e", timed_out=True)
    answer = done.to_miner_response()
    assert (answer.docker_process_stdout, answer.timed_out, answer.model_extra) == ("o", True, {})


def _failed_with(code: str) -> StatusMetadata:
    context = Problem(code=code, message="m").to_context()
    details = FailureDetails(reason=FailureReason.UNKNOWN, stage=Stage.UNKNOWN, message="m", context=context)
    return StatusMetadata(job_failure_details=details)


@pytest.mark.parametrize(
    ("status", "metadata", "real"),
    [
        (JobStatus.FAILED, _failed_with("cancelled"), JobStatus.CANCELLED),
        (JobStatus.FAILED, _failed_with("nonzero_exit"), JobStatus.FAILED),
        (JobStatus.FAILED, StatusMetadata(), JobStatus.FAILED),
        (JobStatus.FAILED, None, JobStatus.FAILED),
        (JobStatus.COMPLETED, _failed_with("cancelled"), JobStatus.COMPLETED),
    ],
)
def test_a_cancelled_job_is_known_by_its_code(
    status: JobStatus, metadata: StatusMetadata | None, real: JobStatus
) -> None:
    assert without_disguise(status, metadata) is real
    assert disguised(real) is status


def test_a_failure_of_an_older_peer_is_no_cancellation() -> None:
    details = FailureDetails(reason=FailureReason.UNKNOWN, stage=Stage.UNKNOWN, message="m")
    assert without_disguise(JobStatus.FAILED, StatusMetadata(job_failure_details=details)) is JobStatus.FAILED

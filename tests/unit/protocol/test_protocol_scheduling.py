"""Waiting, attempts and explanations on the wire: what older peers see of them is nothing."""

import datetime as dt
import json

import pytest
from pydantic import ValidationError

from compute_horde.lifecycle.failures import problem
from compute_horde.protocol.base import parse_frame
from compute_horde.protocol.compat.queued import shown_unqueued, without_scheduling
from compute_horde.protocol.details import HordeFailureDetails, StatusMetadata
from compute_horde.protocol.enums import ExecutorClass, HordeFailureReason, JobStatus, Participant
from compute_horde.protocol.explanation import Explanation, MinerTrial
from compute_horde.protocol.facilitator_validator import (
    FACILITATOR_TO_VALIDATOR,
    VALIDATOR_TO_FACILITATOR,
    V0ExplainJobRequest,
    V0ExplainJobResponse,
    V0JobStatusUpdate,
    V0QueueUpdate,
    V2JobRequest,
)
from compute_horde.protocol.problems import Problem, is_worth_another_attempt
from compute_horde.protocol.scheduling import (
    MAX_BACKOFF_SECONDS,
    MAX_POSITIONS,
    AttemptDetails,
    QueueDetails,
    QueuedJob,
    Scheduling,
    attempt_uuid,
    pause_before,
)
from compute_horde.protocol.sdk_facilitator import JobRequest
from compute_horde.protocol.validator_miner import MINER_TO_VALIDATOR, V0FreeExecutorsRequest

JOB = "11111111-1111-4111-8111-111111111111"
BODY = {
    "target_validator_hotkey": "v",
    "executor_class": "always_on.test",
    "docker_image": "busybox",
    "download_time_limit": 1,
    "execution_time_limit": 1,
    "streaming_start_time_limit": 1,
    "upload_time_limit": 1,
}
REQUEST = {
    "signature": {
        "signature_type": "bittensor",
        "signatory": "s",
        "timestamp_ns": 1,
        "signature": "AA==",
        "signature_scope": "SignedFields",
    },
    "uuid": JOB,
    "executor_class": "always_on.test",
    "docker_image": "busybox",
    "args": [],
    "env": {},
    "download_time_limit": 1,
    "execution_time_limit": 1,
    "upload_time_limit": 1,
    "streaming_start_time_limit": 1,
}
FAILED = StatusMetadata(
    horde_failure_details=HordeFailureDetails(
        reported_by=Participant.MINER, reason=HordeFailureReason.EXECUTOR_DISCONNECTED, message="gone"
    )
)


def test_wishes_about_scheduling_come_with_the_request_and_are_checked() -> None:
    assert JobRequest.model_validate(BODY).scheduling.is_default
    body = {**BODY, "queue_time_limit": 0, "attempts": 2, "retry_backoff": 0.5, "priority": -3}
    wishes = JobRequest.model_validate(body).scheduling
    assert wishes == Scheduling(queue_time_limit=0, attempts=2, retry_backoff=0.5, priority=-3)
    assert not wishes.is_default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue_time_limit", -1),
        ("queue_time_limit", 7 * 24 * 3600 + 1),
        ("attempts", 0),
        ("attempts", 11),
        ("retry_backoff", -0.1),
        ("retry_backoff", float("inf")),
        ("priority", 101),
        ("priority", True),
    ],
)
def test_wishes_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        JobRequest.model_validate({**BODY, name: value})


def test_a_validator_of_the_existing_network_sees_no_wishes() -> None:
    plain = V2JobRequest.model_validate(REQUEST)
    assert "scheduling" not in json.loads(plain.to_frame())
    wished = V2JobRequest.model_validate({**REQUEST, "scheduling": {"attempts": 1}})
    assert json.loads(wished.to_frame())["scheduling"]["attempts"] == 1
    assert without_scheduling(wished.to_frame()) == plain.to_frame()
    assert wished.signed_fields() == plain.signed_fields()


def test_a_status_names_attempt_and_queue_only_where_there_is_something_to_name() -> None:
    assert set(json.loads(FAILED.model_dump_json())) & {"attempt", "queue"} == set()
    attempt, queue = AttemptDetails(number=2, of=3), QueueDetails(position=1, length=4, time_limit_s=60)
    metadata = FAILED.model_copy(update={"attempt": attempt, "queue": queue})
    update = V0JobStatusUpdate(uuid=JOB, status=JobStatus.QUEUED, metadata=metadata)
    assert parse_frame(VALIDATOR_TO_FACILITATOR, update.to_frame()) == update


def test_a_client_that_knows_no_queue_sees_a_received_job() -> None:
    attempt = AttemptDetails(number=2, of=3, miner_hotkey="m")
    queued = FAILED.model_copy(update={"attempt": attempt})
    assert shown_unqueued(JobStatus.QUEUED, queued) == (JobStatus.RECEIVED, StatusMetadata())
    accepted = StatusMetadata(attempt=attempt)
    assert shown_unqueued(JobStatus.ACCEPTED, accepted) == (JobStatus.ACCEPTED, StatusMetadata())
    assert shown_unqueued(JobStatus.HORDE_FAILED, queued) == (JobStatus.HORDE_FAILED, FAILED)


def test_places_in_the_queue_are_bounded() -> None:
    place = QueuedJob(job_uuid=JOB, position=1, length=2, starts_in_s=1.5)
    update = V0QueueUpdate(jobs=[place])
    assert parse_frame(VALIDATOR_TO_FACILITATOR, update.to_frame()) == update
    with pytest.raises(ValidationError):
        V0QueueUpdate(jobs=[place] * (MAX_POSITIONS + 1))


def test_questions_and_explanations_go_both_ways() -> None:
    request = V0ExplainJobRequest(job_uuid=JOB, request_id="r")
    assert parse_frame(FACILITATOR_TO_VALIDATOR, request.to_frame()) == request
    trials = [
        MinerTrial(
            miner_hotkey="m", answer="busy", message="b", tries=2, last_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        ),
        MinerTrial(miner_hotkey="n", answer="not_tried", message="-"),
    ]
    explained = Explanation(job_uuid=JOB, state="queued", summary="waits", reported_by="validator", miners=trials)
    response = V0ExplainJobResponse(job_uuid=JOB, request_id="r", explanation=explained)
    assert parse_frame(VALIDATOR_TO_FACILITATOR, response.to_frame()) == response
    assert "2026-01-01T00:00:00.000000Z" in response.to_frame()


def test_free_executors_are_counted_by_class() -> None:
    free = V0FreeExecutorsRequest(free={ExecutorClass.always_on__test: 0})
    assert parse_frame(MINER_TO_VALIDATOR, free.to_frame()) == free


def test_each_attempt_has_a_name_of_its_own_that_never_changes() -> None:
    names = [attempt_uuid(JOB, number) for number in (1, 2, 3)]
    assert names[0] == JOB
    assert len(set(names)) == 3
    assert names == [attempt_uuid(JOB, number) for number in (1, 2, 3)]


def test_pauses_between_attempts_double_up_to_a_limit() -> None:
    assert [pause_before(attempt, 1.5) for attempt in (2, 3, 4)] == [1.5, 3, 6]
    assert pause_before(10, 1000) == MAX_BACKOFF_SECONDS


def test_the_users_own_failure_is_never_worth_another_attempt() -> None:
    gone, own = problem("executor_disconnected", "m"), problem("nonzero_exit", "m")
    unreachable = problem("download_unreachable", "m")  # may pass, and is the user's all the same
    for status in (JobStatus.FAILED, JobStatus.HORDE_FAILED, JobStatus.REJECTED):
        assert is_worth_another_attempt(gone, status)
        assert not is_worth_another_attempt(own, status)
        assert not is_worth_another_attempt(unreachable, status)
        assert is_worth_another_attempt(None, status) is (status is JobStatus.HORDE_FAILED)
    assert not is_worth_another_attempt(gone, JobStatus.COMPLETED)
    assert not is_worth_another_attempt(Problem(code="x", message="m"), JobStatus.FAILED)

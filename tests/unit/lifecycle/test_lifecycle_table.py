"""The lifecycle table, deadlines and the classification of failures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_horde.lifecycle import failures
from compute_horde.lifecycle.clock import elapsed
from compute_horde.lifecycle.deadlines import Limits, RunningDeadline
from compute_horde.lifecycle.states import (
    ACTORS,
    PROGRESS,
    TERMINAL,
    IllegalTransition,
    JobState,
    from_wire,
    to_wire,
    transition,
    transition_in_attempt,
)
from compute_horde.protocol.enums import (
    ExecutorClass,
    FailureReason,
    Fault,
    HordeFailureReason,
    JobStatus,
    Participant,
    Stage,
)
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.scheduling import MAX_ATTEMPTS
from compute_horde.protocol.validator_miner import V0HordeFailedRequest, V0JobFailedRequest

STATES, ACTOR = st.sampled_from(JobState), st.sampled_from(Participant)


@given(st.lists(st.tuples(STATES, ACTOR), max_size=30))
def test_a_job_never_goes_back_and_never_leaves_its_end(events: list[tuple[JobState, Participant]]) -> None:
    state = JobState.SENT
    for to, by in events:
        before = state
        try:
            state = transition(state, to, by)
        except IllegalTransition:
            assert state is before
            continue
        assert not before.is_terminal
        assert by in ACTORS[to]
        assert state.is_terminal or PROGRESS.index(state) > PROGRESS.index(before)


@given(STATES, ACTOR)
def test_every_state_under_way_may_end(state: JobState, by: Participant) -> None:
    for end in TERMINAL:
        allowed = not state.is_terminal and by in ACTORS[end]
        if allowed:
            assert transition(state, end, by) is end
        else:
            with pytest.raises(IllegalTransition):
                transition(state, end, by)


def test_the_table_is_complete() -> None:
    assert set(ACTORS) == set(JobState) == {*PROGRESS, *TERMINAL}
    assert not set(PROGRESS) & TERMINAL


def test_a_refusal_says_why() -> None:
    with pytest.raises(IllegalTransition, match="sdk may not report completed"):
        transition(JobState.SENT, JobState.COMPLETED, Participant.SDK)
    with pytest.raises(IllegalTransition, match="already ended as failed"):
        transition(JobState.FAILED, JobState.COMPLETED, Participant.MINER)
    with pytest.raises(IllegalTransition, match="accepted does not follow accepted"):
        transition(JobState.ACCEPTED, JobState.ACCEPTED, Participant.MINER)


def test_wire_names_go_both_ways_and_ours_have_a_neighbour() -> None:
    assert from_wire(JobStatus.UNKNOWN) is None
    for status in set(JobStatus) - {JobStatus.UNKNOWN}:
        state = from_wire(status)
        assert state is not None
        assert to_wire(state) is (JobStatus.FAILED if status is JobStatus.CANCELLED else status)
    assert to_wire(JobState.CANCELLED) is JobStatus.FAILED


@given(st.lists(st.tuples(STATES, st.integers(0, MAX_ATTEMPTS + 2), ACTOR), max_size=30))
def test_attempts_only_go_forward_and_each_goes_forward_by_itself(
    events: list[tuple[JobState, int, Participant]],
) -> None:
    state, attempt = JobState.SENT, 1
    for to, of_attempt, by in events:
        before = state, attempt
        try:
            state, attempt = transition_in_attempt(state, attempt, to, of_attempt, by)
        except IllegalTransition:
            assert (state, attempt) == before
            continue
        assert not before[0].is_terminal
        assert before[1] <= attempt == of_attempt <= MAX_ATTEMPTS
        if attempt == before[1]:
            assert state is transition(before[0], to, by)
        else:
            assert state.is_terminal or PROGRESS.index(state) >= PROGRESS.index(JobState.QUEUED)
            assert by not in (Participant.SDK, Participant.FACILITATOR)


def test_a_new_attempt_begins_behind_received() -> None:
    ready, validator = JobState.EXECUTOR_READY, Participant.VALIDATOR
    assert transition_in_attempt(ready, 1, JobState.QUEUED, 2, validator) == (JobState.QUEUED, 2)
    assert transition_in_attempt(ready, 1, JobState.ACCEPTED, 3, validator) == (JobState.ACCEPTED, 3)
    assert transition_in_attempt(JobState.QUEUED, 2, JobState.ACCEPTED, 2, validator) == (JobState.ACCEPTED, 2)
    assert transition_in_attempt(ready, 1, JobState.HORDE_FAILED, 2, validator) == (JobState.HORDE_FAILED, 2)


@pytest.mark.parametrize(
    ("state", "to", "of_attempt", "by", "why"),
    [
        (JobState.QUEUED, JobState.COMPLETED, 1, Participant.MINER, "attempt 1 is over"),
        (JobState.ACCEPTED, JobState.RECEIVED, 3, Participant.VALIDATOR, "does not follow"),
        (JobState.ACCEPTED, JobState.CANCELLED, 3, Participant.FACILITATOR, "may not begin attempt 3"),
        (JobState.ACCEPTED, JobState.QUEUED, 11, Participant.VALIDATOR, "may not begin attempt 11"),
        (JobState.SENT, JobState.QUEUED, 3, Participant.VALIDATOR, "nobody has received"),
        (JobState.FAILED, JobState.QUEUED, 3, Participant.VALIDATOR, "already ended"),
    ],
)
def test_no_attempt_begins_out_of_turn(
    state: JobState, to: JobState, of_attempt: int, by: Participant, why: str
) -> None:
    with pytest.raises(IllegalTransition, match=why):
        transition_in_attempt(state, 2, to, of_attempt, by)


def test_the_clock_of_deadlines_goes_on() -> None:
    first = elapsed()
    assert 0 < first <= elapsed()


def test_limits_add_up_as_in_section_6_5() -> None:
    limits = Limits(download=5, execution=10, upload=7, streaming_start=4, startup=5)
    assert limits.cost == 22
    assert limits.readiness(ExecutorClass.always_on__llm__a6000) == 35
    assert limits.overall(ExecutorClass.always_on__llm__a6000) == 7 + 35 + 5 + 22 + 4
    assert limits.timing().model_dump() == {
        "allowed_leeway": 5,
        "download_time_limit": 5,
        "execution_time_limit": 10,
        "upload_time_limit": 7,
        "streaming_start_time_limit": 4,
    }


@given(st.lists(st.floats(0, 1e6), max_size=6), st.floats(0, 1e6))
def test_unused_time_carries_over_and_leeway_is_granted_once(stages: list[float], elapsed: float) -> None:
    deadline = RunningDeadline(100.0, 5)
    for seconds in stages:
        before = deadline.at
        assert deadline.extend(seconds) == deadline.at == before + seconds
    assert deadline.at == pytest.approx(105 + sum(stages))
    assert deadline.remaining(100 + elapsed) == max(0.0, deadline.at - (100 + elapsed))


@pytest.mark.parametrize("code", failures.KINDS)
def test_every_code_becomes_a_message_and_comes_back_the_same(code: str) -> None:
    found = failures.problem(code, "what happened", size=3)
    message = failures.to_wire(found, "u", reported_by=Participant.EXECUTOR, stdout="o", stderr="e", exit_status=1)
    assert Problem.from_context(message.context, message.message) == found
    assert failures.is_jobs_own(found) is isinstance(message, V0JobFailedRequest)
    if isinstance(message, V0JobFailedRequest):
        assert (message.stage, message.docker_process_stdout, message.docker_process_exit_status) == (
            found.stage,
            "o",
            1,
        )
        assert message.reason in FailureReason
    else:
        assert isinstance(message, V0HordeFailedRequest)
        assert message.reported_by is Participant.EXECUTOR
        assert message.reason in HordeFailureReason
    assert found.hint


def test_a_jobs_own_failure_is_the_users_and_the_hordes_is_not() -> None:
    for kind in failures.KINDS.values():
        assert isinstance(kind.reason, FailureReason) is (kind.fault is Fault.USER)


def test_a_stage_may_be_given() -> None:
    assert failures.problem("disk_full", "m", Stage.RESULT_UPLOAD).stage is Stage.RESULT_UPLOAD

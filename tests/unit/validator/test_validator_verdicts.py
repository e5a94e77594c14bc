"""Whether a job waits or ends; its terms; what is kept of miners' answers; what older facilitators are told."""

import asyncio
from typing import Any

import pytest

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.lifecycle.failures import problem
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.details import MinerResponse, StatusMetadata
from compute_horde.protocol.enums import ExecutorClass, JobStatus, RejectionReason
from compute_horde.protocol.explanation import MAX_MINERS
from compute_horde.protocol.extensions import LINK_EXTENSIONS
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate
from compute_horde.protocol.scheduling import AttemptDetails, QueueDetails, Scheduling
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.validator import outcomes
from compute_horde.validator.claims import Claims
from compute_horde.validator.older import as_older_know_it, is_queued
from compute_horde.validator.outcomes import Outcome
from compute_horde.validator.persisting import persist
from compute_horde.validator.rows import Job, words
from compute_horde.validator.scheduling import terms_of
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.shrinking import bare
from compute_horde.validator.testing.scripted import job_request, no_pauses
from compute_horde.validator.trials import TrialBook
from compute_horde.validator.verdicts import Candidate, Situation, is_hopeless, verdict
from compute_horde.validator.waits import queue_left

ALICE = throwaway_hotkey("//Alice")
JOB = "11111111-1111-4111-8111-111111111111"
FREE, AWAY = Candidate("a"), Candidate("b", away=True)
LACKS, BARRED = Candidate("c", lacks_class=True), Candidate("d", excluded=True)
FAILED = outcomes.horde_failed(problem("engine_unavailable", "m"))


def end(*candidates: Candidate, waits: bool = False, **rest: Any) -> Outcome | None:
    values: dict[str, Any] = {"trusted": False, "last_failure": None, "busy": None, "waited_s": 0.0} | rest
    return verdict(Situation(ExecutorClass.always_on__test, candidates=candidates, waits=waits, **values))


def code(outcome: Outcome | None) -> str:
    assert outcome is not None
    assert outcome.problem is not None
    return outcome.problem.code


@pytest.mark.parametrize("candidates", [(FREE,), (AWAY,), (AWAY, LACKS), (FREE, BARRED)])
def test_it_waits_as_long_as_somebody_may_take_it(candidates: tuple[Candidate, ...]) -> None:
    assert end(*candidates, waits=True) is None
    assert end(*candidates, waits=True, last_failure=FAILED) is None


@pytest.mark.parametrize("waits", [True, False])
def test_it_ends_at_once_where_nobody_ever_will(waits: bool) -> None:
    assert code(end(waits=waits)) == "no_miner_for_job"
    assert code(end(LACKS, waits=waits)) == "no_miner_for_job"
    assert end(BARRED, LACKS, waits=waits, last_failure=FAILED) == FAILED
    assert is_hopeless([BARRED, LACKS])
    assert not is_hopeless([BARRED, AWAY])


def test_without_waiting_it_ends_as_the_miners_are() -> None:
    busy = outcomes.all_busy("x")
    assert end(FREE, AWAY, LACKS, busy=busy) is busy
    assert code(end(FREE)) == "busy"
    assert code(end(AWAY)) == "miner_unreachable"
    assert code(end(AWAY, LACKS)) == "no_miner_for_job"
    trusted = end(AWAY, trusted=True)
    assert trusted is not None
    assert "trusted miner could not" in trusted.message
    none = end(trusted=True)
    assert none is not None
    assert "no trusted miner" in none.message


def test_after_waiting_it_says_so() -> None:
    timed_out = end(FREE, AWAY, waited_s=12.34)
    assert timed_out is not None
    assert timed_out.metadata.job_rejection_details is not None
    assert timed_out.metadata.job_rejection_details.reason is RejectionReason.BUSY
    assert code(timed_out) == "queue_timeout"
    assert "could be reached" in str(end(AWAY, waited_s=1))
    tried = end(FREE, waited_s=12.34, last_failure=FAILED)
    assert tried is not None
    assert code(tried) == "engine_unavailable"
    assert tried.metadata.horde_failure_details is not None
    assert (tried.metadata.horde_failure_details.context or {})["queue"] == {"waited_s": 12.3}


def test_an_outcome_survives_the_database() -> None:
    for outcome in (FAILED, outcomes.cancelled(), outcomes.all_busy("x")):
        assert Outcome.from_json(outcome.to_json()) == outcome
    done = Outcome(JobState.COMPLETED, FAILED.by, StatusMetadata())
    assert (done.message, done.problem, done.is_worth_another) == ("", None, False)
    assert FAILED.is_worth_another
    assert FAILED.without_output() == FAILED
    assert outcomes.cancelled().without_output().problem == outcomes.cancelled().problem


# terms


def test_wishes_come_before_settings_and_the_operators_limits_before_both() -> None:
    settings = ValidatorSettings(queue_time_limit=10, max_queue_time=20, attempts=2, retry_backoff=3)
    plain = terms_of(job_request(JOB, ALICE), settings)
    assert (plain.queue_s, plain.attempts, plain.backoff_s, plain.priority) == (10, 2, 3, 0)
    wish = Scheduling(queue_time_limit=30, attempts=4, retry_backoff=0, priority=-1)
    wished = terms_of(job_request(JOB, ALICE, scheduling=wish), settings)
    assert (wished.queue_s, wished.attempts, wished.backoff_s, wished.priority) == (20, 4, 0, -1)
    assert [plain.pause_before(number) for number in (2, 3, 4)] == [3, 6, 12]


def test_the_time_left_to_wait_never_grows() -> None:
    terms = terms_of(job_request(JOB, ALICE), ValidatorSettings(queue_time_limit=100))
    job = Job(job_request(JOB, ALICE), JobState.QUEUED, 0.0)
    assert queue_left(job, terms) == 100
    kept = Job(job.request, JobState.QUEUED, 0.0, queued_at=1000.0, queue_left_s=60.0)
    assert [queue_left(kept, terms, now) for now in (900.0, 1000.0, 1050.0, 2000.0)] == [60, 60, 10, 0]


# what miners answered


def test_the_last_answer_of_each_miner_is_kept_and_counted() -> None:
    times = iter(range(10_000))
    book = TrialBook(clock=lambda: float(next(times)))
    assert book.note("a", "unreachable", "x" * 1000 + "\0")
    assert not book.note("a", "unreachable", "again")
    assert book.note("a", "declined", "no")
    (trial,) = book.unwritten()
    assert (trial.tries, trial.message, trial.last_at) == (3, "no", 2.0)
    assert book.declined() == {"a"}
    book.written([trial])
    assert book.unwritten() == ()
    for number in range(2 * MAX_MINERS):
        book.note(f"m{number}", "busy", "")
    assert len(book.all()) == MAX_MINERS
    assert book.all()[-1] == trial
    assert TrialBook([trial]).all() == [trial]
    assert words("a\0b" * 1000) == ("ab" * 1000)[:500]


# claims


async def test_a_job_is_ours_once_the_facilitator_has_answered() -> None:
    claims = Claims()
    await claims.confirmed(JOB)  # nothing is on its way
    claims.posted(JOB)
    claims.posted(JOB)
    assert claims.is_open(JOB)
    waiting = asyncio.create_task(claims.confirmed(JOB))
    claims.connected(LINK_EXTENSIONS)
    await asyncio.sleep(0)
    assert not waiting.done()
    claims.answered(JOB)
    claims.answered(JOB)
    await waiting
    claims.posted(JOB)
    claims.connected(())
    assert not claims.is_open(JOB)
    claims.posted(JOB)
    assert not claims.is_open(JOB)


# older facilitators


def test_older_facilitators_are_told_what_they_know() -> None:
    attempt = AttemptDetails(number=2, of=3)
    queued = V0JobStatusUpdate(
        uuid=JOB,
        status=JobStatus.QUEUED,
        metadata=StatusMetadata(attempt=attempt, queue=QueueDetails(time_limit_s=1)),
    ).to_frame()
    assert is_queued(queued)
    result = MinerResponse(docker_process_stdout='"attempt":', docker_process_stderr='"status":"queued"')
    done = V0JobStatusUpdate(uuid=JOB, status=JobStatus.COMPLETED, metadata=StatusMetadata(miner_response=result))
    assert not is_queued(done.to_frame())
    with_attempt = done.model_copy(update={"metadata": StatusMetadata(miner_response=result, attempt=attempt)})
    assert as_older_know_it(with_attempt.to_frame()) == done.to_frame()
    accepted = V0JobStatusUpdate(uuid=JOB, status=JobStatus.ACCEPTED)
    assert as_older_know_it(accepted.to_frame()) == accepted.to_frame()
    told = accepted.model_copy(update={"metadata": StatusMetadata(attempt=attempt)})
    assert as_older_know_it(told.to_frame()) == accepted.to_frame()
    assert bare(told.to_frame()) == told.to_frame()  # the number of a later attempt belongs to the status
    first = accepted.model_copy(update={"metadata": StatusMetadata(attempt=AttemptDetails(number=1, of=3))})
    assert bare(first.to_frame()) == accepted.to_frame()


# writes that must not be lost


async def test_a_write_is_repeated_and_knows_that_it_is() -> None:
    calls: list[bool] = []

    async def work(again: bool) -> str:
        calls.append(again)
        if len(calls) < 3:
            raise DatabaseUnavailable("away")
        return "done"

    assert await persist(work, no_pauses, "a test") == "done"
    assert calls == [False, True, True]

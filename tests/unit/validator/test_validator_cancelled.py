"""How a cancelled job ends, and that rows of the release before know nothing of it."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.lifecycle.states import ACTORS, JobState
from compute_horde.protocol.base import DEFAULT_MAX_FRAME_BYTES
from compute_horde.protocol.compat.cancelled import without_disguise
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import JobStatus, Participant, RejectionReason
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.validator_miner import V0DeclineJobRequest, V0JobFailedRequest, V0JobFinishedRequest
from compute_horde.storage.database import Database
from compute_horde.storage.leases import Owners
from compute_horde.storage.migrate import migrate, unmigrate
from compute_horde.validator import outcomes
from compute_horde.validator.leasing import Leases
from compute_horde.validator.rows import Change, StaleJob
from compute_horde.validator.shrinking import KEPT_CHARACTERS, without_bulk
from compute_horde.validator.store import Store
from compute_horde.validator.testing.scripted import job_request

ALICE = throwaway_hotkey("//Alice")
JOB = "11111111-1111-4111-8111-111111111111"


def found(outcome: outcomes.Outcome) -> Problem:
    details = outcome.metadata.job_failure_details
    assert details is not None
    problem_ = Problem.from_context(details.context, details.message)
    assert problem_ is not None
    assert without_disguise(JobStatus.FAILED, outcome.metadata) is JobStatus.CANCELLED
    assert outcome.state is JobState.CANCELLED
    assert outcome.by in ACTORS[JobState.CANCELLED]
    assert outcome.blame is None
    return problem_


def said(code: str, **output: Any) -> V0JobFailedRequest | Any:
    return to_wire(problem(code, "m"), JOB, reported_by=Participant.EXECUTOR, **output)


def test_a_miners_cancelled_keeps_what_was_printed() -> None:
    ended = outcomes.from_miner(said("cancelled", stdout="half", stderr="way", exit_status=137))
    assert found(ended).code == "cancelled"
    assert ended.by is Participant.MINER
    details = ended.metadata.job_failure_details
    assert details is not None
    assert (details.docker_process_stdout, details.docker_process_stderr) == ("half", "way")
    assert outcomes.as_wished(ended) is ended


def test_a_cancelled_that_nobody_wished_is_the_miners_fault() -> None:
    ended = outcomes.unwished(outcomes.from_miner(said("cancelled")))
    assert (ended.state, ended.blame) == (JobState.HORDE_FAILED, "protocol_error")
    failed = outcomes.from_miner(said("nonzero_exit"))
    assert outcomes.unwished(failed) is failed


def test_a_result_stays_a_result() -> None:
    finished = V0JobFinishedRequest(job_uuid=JOB, docker_process_stdout="", docker_process_stderr="")
    done = outcomes.from_miner(finished)
    assert outcomes.as_wished(done) is done


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (outcomes.from_miner(said("executor_disconnected")), "horde_failure_details"),
        (outcomes.from_miner(said("nonzero_exit", stdout="out", exit_status=3)), "job_failure_details"),
        (
            outcomes.from_miner(V0DeclineJobRequest(job_uuid=JOB, reason=RejectionReason.BUSY)),
            "job_rejection_details",
        ),
        (outcomes.horde_failed(problem("miner_silent", "m")), "horde_failure_details"),
        (outcomes.unhandled(KeyError("k")), "horde_failure_details"),
    ],
)
def test_any_other_end_after_the_wish_is_cancelled_with_what_went_wrong(
    before: outcomes.Outcome, kept: str
) -> None:
    ended = outcomes.as_wished(before)
    why = found(ended)
    assert why.details["instead_of"] == before.state.value
    assert kept in why.details
    details = ended.metadata.job_failure_details
    assert details is not None
    if kept == "job_failure_details":
        assert (details.docker_process_stdout, details.docker_process_exit_status) == ("out", 3)


def test_a_result_carries_its_evidence_untouched() -> None:
    evidence: dict[str, Any] = {"image_digest": "sha256:" + "a" * 64, "output_hashes": {"x/y": "b" * 64}}
    finished = V0JobFinishedRequest(job_uuid=JOB, docker_process_stdout="", docker_process_stderr="", **evidence)
    response = outcomes.from_miner(finished).metadata.miner_response
    assert response is not None
    assert {"image_digest": response.image_digest, "output_hashes": response.output_hashes} == evidence


def test_a_cancelled_job_with_too_much_output_stays_a_cancelled_one() -> None:
    ended = outcomes.from_miner(said("cancelled", stdout="x" * 10**6, stderr=None))
    update = V0JobStatusUpdate(uuid=JOB, status=JobStatus.FAILED, metadata=ended.metadata)
    small = V0JobStatusUpdate.model_validate_json(without_bulk(update.to_frame()))
    assert small.metadata is not None
    assert without_disguise(small.status, small.metadata) is JobStatus.CANCELLED
    assert small.metadata.job_failure_details is not None
    assert small.metadata.job_failure_details.docker_process_stdout == "x" * KEPT_CHARACTERS
    assert ended.metadata.job_failure_details is not None
    huge = ended.metadata.job_failure_details.model_copy(update={"context": {"x": "y" * 10**6}})
    update = update.model_copy(update={"metadata": StatusMetadata(job_failure_details=huge)})
    assert len(without_bulk(update.to_frame())) < 3 * KEPT_CHARACTERS


def test_what_is_kept_of_a_hostile_failure_fits_into_the_smallest_frame() -> None:
    context = {**problem("cancelled", "x").to_context(), "x": "\U0001f600" * 10**4}
    told = said("cancelled", stdout="\0" * 10**6, stderr="\0" * 10**6)
    told = told.model_copy(update={"message": "\0" * 10**6, "context": context})
    update = V0JobStatusUpdate(uuid=JOB, status=JobStatus.FAILED, metadata=outcomes.from_miner(told).metadata)
    small = without_bulk(update.to_frame())
    assert len(small.encode()) < DEFAULT_MAX_FRAME_BYTES
    assert without_disguise(JobStatus.FAILED, V0JobStatusUpdate.model_validate_json(small).metadata) is (
        JobStatus.CANCELLED
    )


async def test_rows_of_the_release_before_are_read_and_can_be_cancelled(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/old.db")
    try:
        await migrate(database, "validator", "0001")
        row = {"uuid": JOB, "request": job_request(JOB, ALICE).to_frame()}
        async with database.begin() as connection:
            await connection.execute(
                sa.text(
                    "INSERT INTO jobs (uuid, request, state, received_at, cheated) "
                    "VALUES (:uuid, :request, 'received', 1.0, 0)"
                ),
                row,
            )
        await migrate(database, "validator")
        owners = Owners(database)
        await owners.start()
        leases = Leases(database, owners, 15)
        store = Store(database, leases.token, leases.lease_s)
        (job,) = (await leases.take_over()).jobs  # nobody held it
        assert not job.cancel_requested
        assert (job.attempt, job.queued_at, job.queue_left_s, job.last_failure) == (1, None, None, None)
        assert await store.request_cancel(JOB)
        assert await store.request_cancel(JOB)
        (job,) = await store.unfinished()
        assert job.cancel_requested
        assert not await store.request_cancel("unknown")
        await store.apply(job, Change({"state": JobState.CANCELLED}, "{}"))
        with pytest.raises(StaleJob):
            await store.apply(job, Change({"state": JobState.CANCELLED}, "{}"))
        assert not await store.request_cancel(JOB)
        await unmigrate(database, "validator", "0001")
        await migrate(database, "validator")
        kept = await store.job(JOB)
        assert kept is not None
        assert kept.state is JobState.CANCELLED
        await owners.close()
    finally:
        await database.close()

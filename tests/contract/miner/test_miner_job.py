"""A job from the validator through the miner to the executor and back (sections 6.5 and 7.1)."""

import uuid
from pathlib import Path

import pytest

from compute_horde.miner.testing import (
    BOB,
    LLM,
    TEST,
    FakeClock,
    accepted_receipt,
    finished,
    finished_receipt,
    initial,
    open_horde,
    request,
    until,
)
from compute_horde.protocol.base import Message
from compute_horde.protocol.enums import HordeFailureReason, Participant, Stage
from compute_horde.protocol.receipts import page_at, parse_line
from compute_horde.protocol.validator_miner import (
    ExecutorTiming,
    GenericError,
    V0ExecutionDoneRequest,
    V0ExecutorFailedRequest,
    V0ExecutorReadyRequest,
    V0HordeFailedRequest,
    V0JobFailedRequest,
    V0MachineSpecsRequest,
    V0StreamingJobNotReadyRequest,
    V0StreamingJobReadyRequest,
    V0VolumesReadyRequest,
)
from compute_horde.protocol.volumes import InlineVolume


@pytest.fixture
def job() -> str:
    return str(uuid.uuid4())


async def test_full_sequence(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        await validator.say(accepted_receipt(job))
        executor = await horde.executor()
        assert (await executor.expect("V0InitialJobRequest"))["job_uuid"] == job
        await executor.say(V0ExecutorReadyRequest(job_uuid=job, executor_token="secret"))
        assert (await validator.expect("V0ExecutorReadyRequest"))["executor_token"] is None
        await validator.say(request(job))
        assert (await executor.expect("V0JobRequest"))["docker_run_cmd"] == ["echo", "hé"]
        await executor.say(V0VolumesReadyRequest(job_uuid=job), V0ExecutionDoneRequest(job_uuid=job))
        await validator.expect("V0VolumesReadyRequest", "V0ExecutionDoneRequest")
        await executor.say(V0MachineSpecsRequest(job_uuid=job, specs={"specs": {"cpu": 2}}))
        assert (await validator.expect("V0MachineSpecsRequest"))["specs"] == {"specs": {"cpu": 2}}
        await executor.say(finished(job, upload_results={"a": "etag"}, timed_out=True))
        result = await validator.expect("V0JobFinishedRequest")
        assert (result["upload_results"], result["timed_out"]) == ({"a": "etag"}, True)
        await validator.say(finished_receipt(job))
        await until(lambda: horde.miner.pool.free(TEST) == 2)
        (await horde.launched()).end(0)
        await until(lambda: horde.miner.pool.tidying[TEST] == 0)


async def test_receipts_are_countersigned_and_the_first_wins(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        first = finished_receipt(job)
        await validator.say(accepted_receipt(job), first, finished_receipt(job), accepted_receipt(job))
        await validator.say(finished_receipt(job, signer=BOB))
        assert "not valid" in (await validator.expect("GenericError"))["details"]
        book = horde.miner.book
        assert book is not None
        page = page_at(first.payload.timestamp.timestamp())
        found = await book.page(page) or await book.page(page + 1)
        assert found is not None
        receipts = [parse_line(line) for line in found.body.decode().splitlines()]
        kinds = [receipt.payload.receipt_type for receipt in receipts]
        assert kinds == ["JobStartedReceipt", "JobAcceptedReceipt", "JobFinishedReceipt"]
        assert receipts[2].payload.timestamp == first.payload.timestamp
        assert all(receipt.is_signed_by_both(horde.verifier) for receipt in receipts)


async def test_the_job_request_may_come_before_the_executor(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job), request(job), request(job))
        await validator.expect("V0AcceptJobRequest")
        executor = await horde.executor()
        await executor.expect("V0InitialJobRequest")
        await executor.silence()
        await executor.say(V0ExecutorReadyRequest(job_uuid=job))
        await executor.expect("V0JobRequest")
        await executor.silence()


async def test_duplicates_and_steps_back_are_dropped(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        specs = V0MachineSpecsRequest(job_uuid=job, specs={})
        done = V0ExecutionDoneRequest(job_uuid=job)
        await executor.say(V0ExecutorReadyRequest(job_uuid=job), done, done, specs, specs)
        late = [finished(job), specs, V0JobFailedRequest(job_uuid=job), GenericError(details="after the end")]
        await executor.say(V0VolumesReadyRequest(job_uuid=job), finished(job), *late)
        await validator.expect("V0ExecutionDoneRequest", "V0MachineSpecsRequest", "V0JobFinishedRequest")
        await validator.silence()


async def test_nothing_is_executed_before_the_job_request(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        executor = await horde.executor()
        await executor.expect("V0InitialJobRequest")
        await executor.say(V0ExecutionDoneRequest(job_uuid=job), finished(job))
        await validator.silence()


async def test_an_executor_may_not_speak_of_another_job(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(str(uuid.uuid4())))
        assert job in (await executor.expect("GenericError"))["details"]
        await executor.say("{}")
        assert (await executor.expect("GenericError"))["details"].startswith("Malformed message: ")
        await validator.silence()


async def test_an_unknown_token_is_turned_away_without_being_repeated(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        token = f"{job}-{uuid.uuid4()}"
        executor = await horde.executor(token)
        details = (await executor.expect("GenericError"))["details"]
        assert details.startswith("No job waiting for token")
        assert token not in details
        assert await executor.hangup() == 1000


FAILED = V0JobFailedRequest(job_uuid="", message="no", stage=Stage.VOLUME_DOWNLOAD)
HORDE_FAILED = V0HordeFailedRequest(
    job_uuid="", reported_by=Participant.EXECUTOR, message="no", reason=HordeFailureReason.GENERIC_ERROR
)


@pytest.mark.parametrize(
    ("said", "heard", "reason"),
    [
        (FAILED, "V0JobFailedRequest", "unknown"),
        (HORDE_FAILED, "V0HordeFailedRequest", "generic_error"),
        (V0ExecutorFailedRequest(job_uuid=""), "V0HordeFailedRequest", "generic_error"),
        (V0StreamingJobNotReadyRequest(job_uuid=""), "V0JobFailedRequest", "unknown"),
        (GenericError(details="boom"), "V0HordeFailedRequest", "generic_error"),
    ],
)
async def test_each_way_to_fail(tmp_path: Path, job: str, said: Message, heard: str, reason: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        own = {} if isinstance(said, GenericError) else {"job_uuid": job}
        await executor.say(said.model_copy(update=own))
        failure = await validator.expect(heard)
        assert (failure["job_uuid"], failure["reason"]) == (job, reason)
        await until(lambda: horde.launcher.launched[0].killed)
        await until(lambda: horde.miner.pool.free(TEST) == 2)


async def test_the_miner_signs_where_a_streaming_job_listens(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(
            V0StreamingJobReadyRequest(job_uuid=job, public_key="PEM", port=6000, executor_token="x")
        )
        ready = await validator.expect("V0StreamingJobReadyRequest")
        assert ready["executor_token"] is None
        assert ready["miner_signature"].startswith("0x")


async def test_each_unfit_job_request_is_refused(tmp_path: Path, job: str) -> None:
    volume = InlineVolume(contents="UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==")
    async with open_horde(tmp_path) as horde:
        validator, bob = await horde.validator(), await horde.validator(BOB)
        await validator.say(initial(job, volume=volume))
        await validator.expect("V0AcceptJobRequest")
        forged = request(job).model_copy(update={"docker_image": "other"})
        stranger = request(str(uuid.uuid4()))
        for unfit in (forged, stranger, request(job, executor_class=LLM), request(job, volume=volume)):
            await validator.say(unfit)
            await validator.expect("GenericError")
        await bob.say(request(job, BOB), finished_receipt(job, BOB))
        await bob.expect("GenericError", "GenericError")
        await validator.say(request(job))
        executor = await horde.executor()
        await executor.say(V0ExecutorReadyRequest(job_uuid=job))
        await executor.expect("V0InitialJobRequest", "V0JobRequest")


async def test_a_job_request_that_never_comes_ends_the_job(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, job_request_limit=0.02) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        executor = await horde.executor()
        await executor.say(V0ExecutorReadyRequest(job_uuid=job))
        failure = await validator.expect("V0ExecutorReadyRequest", "V0HordeFailedRequest")
        assert failure["reason"] == "unhandled_timeout"
        await executor.expect("V0InitialJobRequest")
        assert await executor.hangup() == 1000
        await until(lambda: horde.launcher.launched[0].killed)


async def test_a_job_that_overruns_everything_ends(tmp_path: Path, job: str) -> None:
    clock = FakeClock()
    async with open_horde(tmp_path, timers=clock.timers) as horde:
        validator, _ = await horde.begun(job)
        clock.now += 3600
        failure = await validator.expect("V0HordeFailedRequest")
        assert failure["reason"] == "final_response_timed_out"
        await until(lambda: horde.miner.pool.free(TEST) == 2)


async def test_an_executor_that_is_never_ready_ends_the_job(tmp_path: Path, job: str) -> None:
    clock = FakeClock()
    async with open_horde(tmp_path, timers=clock.timers) as horde:
        validator = await horde.validator()
        await validator.say(initial(job, timing=ExecutorTiming(execution_time_limit=1000)))
        await validator.expect("V0AcceptJobRequest")
        clock.now += 400  # past the start-up, long before the job's end
        failure = await validator.expect("V0HordeFailedRequest")
        assert failure["reason"] == "executor_readiness_response_timed_out"


async def test_a_finished_receipt_before_the_end_stops_the_executor(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, _ = await horde.begun(job)
        await validator.say(finished_receipt(job))
        await validator.expect("V0HordeFailedRequest")
        await until(lambda: horde.launcher.launched[0].killed)
        await until(lambda: horde.miner.pool.free(TEST) == 2)

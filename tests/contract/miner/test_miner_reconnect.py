"""Connections that come and go, and restarts: nothing accepted is lost (G47, G48, G49)."""

import asyncio
import uuid
from pathlib import Path

import pytest

from compute_horde.miner.testing import (
    ALICE,
    TEST,
    finished,
    finished_receipt,
    initial,
    open_horde,
    request,
    until,
)
from compute_horde.protocol.validator_miner import V0ExecutorReadyRequest, V0VolumesReadyRequest

BEGUN = ("V0AcceptJobRequest", "V0ExecutorReadyRequest")


@pytest.fixture
def job() -> str:
    return str(uuid.uuid4())


async def test_a_validator_that_comes_back_hears_everything_again(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.channel.close()
        await executor.say(V0VolumesReadyRequest(job_uuid=job), finished(job, upload_results={"a": "b"}))
        again = await horde.validator()
        result = await again.expect(*BEGUN, "V0VolumesReadyRequest", "V0JobFinishedRequest")
        assert result["upload_results"] == {"a": "b"}


async def test_results_are_re_sent_until_the_finished_receipt_comes(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        await validator.channel.close()
        again = await horde.validator()
        await again.expect(*BEGUN, "V0JobFinishedRequest")
        await again.say(finished_receipt(job), "{")
        await again.expect("GenericError")
        await again.channel.close()
        await (await horde.validator()).silence()


async def test_the_same_request_again_is_answered_with_the_whole_story(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(initial(job))
        await validator.expect(*BEGUN)
        other = await horde.validator()
        await other.say(initial(job))
        await other.expect(*BEGUN)
        await executor.say(finished(job))
        await other.expect("V0JobFinishedRequest")
        await validator.silence()
        assert len(horde.launcher.launched) == 1


async def test_a_job_stays_with_the_connection_that_speaks_of_it(tmp_path: Path, job: str) -> None:
    """Validators of the existing network open one connection a job."""
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        other = await horde.validator()
        await other.silence()
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        await validator.channel.close()
        await other.expect(*BEGUN, "V0JobFinishedRequest")


async def test_a_job_that_no_connection_claims_is_told_to_all(tmp_path: Path, job: str) -> None:
    """Validators of the existing network reconnect without saying for which job."""
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.channel.close()
        again = await horde.validator()
        await again.expect(*BEGUN)
        for_another_job = await horde.validator()
        await executor.say(finished(job))
        await again.expect("V0JobFinishedRequest")
        await for_another_job.expect(*BEGUN, "V0JobFinishedRequest")


async def test_a_job_request_on_a_newer_connection_moves_the_job_there(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        other = await horde.validator()
        await other.say(request(job))
        await other.expect("V0AcceptJobRequest")
        executor = await horde.executor()
        await executor.say(V0ExecutorReadyRequest(job_uuid=job))
        await other.expect("V0ExecutorReadyRequest")


async def test_an_executor_that_comes_back_goes_on(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, executor_reconnect_limit=5) as horde:
        validator, executor = await horde.begun(job)
        await executor.channel.close(1006)
        again = await horde.executor()
        await again.expect("V0InitialJobRequest", "V0JobRequest")
        await again.say(V0ExecutorReadyRequest(job_uuid=job), finished(job))
        await validator.expect("V0JobFinishedRequest")


async def test_an_executor_that_stays_away_is_lost(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.channel.close(1011)
        failure = await validator.expect("V0HordeFailedRequest")
        assert (failure["reason"], failure["reported_by"]) == ("executor_disconnected", "miner")
        assert "1011" in failure["message"]
        await until(lambda: horde.miner.pool.free(TEST) == 2)
        late = await horde.executor((await horde.launched()).token)
        assert "not waiting" in (await late.expect("GenericError"))["details"]


async def test_an_executor_that_ended_is_not_waited_for(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, executor_reconnect_limit=60) as horde:
        validator, executor = await horde.begun(job)
        (await horde.launched()).end(1)
        await executor.channel.close(1006)
        failure = await validator.expect("V0HordeFailedRequest")
        assert failure["reason"] == "executor_disconnected"


async def test_an_executor_that_ends_without_connecting_fails_its_job_at_once(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, executor_reconnect_limit=60) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        (await horde.launched()).end(1)
        await validator.expect("V0HordeFailedRequest")
        await until(lambda: horde.miner.pool.free(TEST) == 2)


async def test_what_an_ended_executor_had_sent_still_counts(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, executor_reconnect_limit=1) as horde:
        validator, executor = await horde.begun(job)
        (await horde.launched()).end(0)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")


async def test_an_ended_executor_whose_connection_hangs_is_cut_off(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        (await horde.launched()).end(0)
        assert (await validator.expect("V0HordeFailedRequest"))["reason"] == "executor_disconnected"
        assert await executor.hangup() == 1001


async def test_a_newer_connection_with_the_same_token_wins(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, older = await horde.begun(job)
        newer = await horde.executor()
        await newer.expect("V0InitialJobRequest", "V0JobRequest")
        assert await older.hangup() == 1008
        await asyncio.sleep(0.1)  # twice the reconnect limit: losing the older one is no loss
        await newer.say(finished(job))
        await validator.expect("V0JobFinishedRequest")


async def test_a_killed_executor_that_will_not_die_does_not_hang_the_job(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        (await horde.launched()).stuck = True
        await executor.channel.close(1006)
        await validator.expect("V0HordeFailedRequest")
        await validator.say(finished_receipt(job))
        (await horde.launched()).end(0)
        await until(lambda: horde.miner.pool.free(TEST) == 2)


async def test_after_a_crash_the_validator_learns_that_the_job_is_lost(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        async with open_horde(tmp_path) as horde:
            assert horde.miner.pool.free(TEST) == 1
            await until(lambda: horde.miner.pool.free(TEST) == 2)
            validator = await horde.validator()
            failure = await validator.expect(*BEGUN, "V0HordeFailedRequest")
            assert failure["reason"] == "executor_disconnected"


async def test_after_a_crash_an_executor_that_lives_on_may_finish(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        token = (await crashed.launched()).token
        async with open_horde(tmp_path, executor_reconnect_limit=5) as horde:
            executor = await horde.executor(token)
            await executor.expect("V0InitialJobRequest", "V0JobRequest")
            validator = await horde.validator(ALICE)
            await validator.expect(*BEGUN)
            await executor.say(finished(job))
            await validator.expect("V0JobFinishedRequest")
            assert horde.miner.pool.free(TEST) == 2


async def test_a_stop_tells_the_validator_and_is_remembered(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, _ = await horde.begun(job)
        await horde.miner.stop()
        failure = await validator.expect("V0HordeFailedRequest")
        assert failure["reason"] == "executor_disconnected"
    async with open_horde(tmp_path) as horde:
        again = await horde.validator()
        await again.expect(*BEGUN, "V0HordeFailedRequest")

"""Connections that come and go, and restarts: nothing accepted is lost (G47, G48, G49)."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from compute_horde.miner import connection, store
from compute_horde.miner.store import JobStore
from compute_horde.miner.testing import (
    QUIET_EXTENSIONS,
    TEST,
    FakeClock,
    Horde,
    Stuck,
    finished,
    finished_receipt,
    initial,
    open_horde,
    request,
    until,
)
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.extensions import announcement
from compute_horde.protocol.validator_miner import V0ExecutorReadyRequest, V0VolumesReadyRequest
from compute_horde.transport.memory import memory_pair

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
        await again.expect("V0JobRequest", "V0InitialJobRequest")
        await again.say(V0ExecutorReadyRequest(job_uuid=job), finished(job))
        await validator.expect("V0JobFinishedRequest")


async def test_an_executor_that_lives_is_waited_for(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.channel.close(1011)
        await asyncio.sleep(0.1)  # twice the reconnect limit
        again = await horde.executor()
        await again.expect("V0JobRequest", "V0InitialJobRequest")
        await again.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        assert len(horde.launcher.launched) == 1


async def test_an_executor_that_stays_away_is_lost_with_the_jobs_time(tmp_path: Path, job: str) -> None:
    clock = FakeClock()
    async with open_horde(tmp_path, timers=clock.timers) as horde:
        validator, executor = await horde.begun(job)
        await executor.channel.close(1011)
        clock.now += 3600
        await validator.expect("V0HordeFailedRequest")
        await until(lambda: horde.miner.pool.free(TEST) == 2)
        late = await horde.executor((await horde.launched()).token)
        assert "not waiting" in (await late.expect("GenericError"))["details"]


async def test_a_newer_connection_with_the_same_token_wins(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, older = await horde.begun(job)
        newer = await horde.executor()
        await newer.expect("V0JobRequest", "V0InitialJobRequest")
        assert await older.hangup() == 1008
        await asyncio.sleep(0.1)  # twice the reconnect limit: losing the older one is no loss
        await newer.say(finished(job))
        await validator.expect("V0JobFinishedRequest")


async def test_a_killed_executor_that_will_not_die_does_not_hang_the_job(tmp_path: Path, job: str) -> None:
    clock = FakeClock()
    async with open_horde(tmp_path, timers=clock.timers) as horde:
        validator, _ = await horde.begun(job)
        (await horde.launched()).stuck = True
        clock.now += 3600
        await validator.expect("V0HordeFailedRequest")
        await validator.say(finished_receipt(job))
        (await horde.launched()).end(0)
        await until(lambda: horde.miner.pool.free(TEST) == 2)


async def test_a_stored_result_is_acknowledged_by_closing_the_connection(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        assert await executor.hangup() == 1000
        await validator.expect("V0JobFinishedRequest")


async def ended(horde: Horde, count: int) -> list[str]:
    """So many jobs have ended, and their validator has gone without having acknowledged them."""
    names = [str(uuid.uuid4()) for _ in range(count)]
    validator = await horde.validator()
    for number, name in enumerate(names):
        await validator.say(initial(name), request(name))
        await validator.expect("V0AcceptJobRequest")
        executor = await horde.executor((await horde.launched(number + 1)).token)
        await executor.say(V0ExecutorReadyRequest(job_uuid=name))
        await executor.say(finished(name, docker_process_stdout="x" * 2000))
        await validator.expect("V0ExecutorReadyRequest", "V0JobFinishedRequest")
    await validator.channel.close()
    return names


async def test_more_results_than_a_connection_takes_at_once_all_arrive_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_REPLAY_CHARS", 1000)
    async with open_horde(tmp_path, executors={TEST: 5}) as horde:
        names = await ended(horde, 5)
    async with open_horde(tmp_path) as horde:
        near, far = memory_pair(request=announcement(QUIET_EXTENSIONS))
        slow = Stuck(far)
        slow.go.set()
        late = await horde.validator(through=(near, slow))
        slow.go.clear()
        await asyncio.sleep(0.02)
        slow.go.set()
        heard = [await late.expect(*BEGUN, "V0JobFinishedRequest") for _ in names]
        assert [result["job_uuid"] for result in heard] == names
        await late.silence()


async def test_a_validator_that_asks_and_does_not_read_costs_little_memory(
    tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_REPLAY_CHARS", 1000)
    reads, messages = 0, JobStore.messages

    async def counted(store: JobStore, job_uuid: str) -> Any:
        nonlocal reads
        reads += 1
        return await messages(store, job_uuid)

    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job, docker_process_stdout="o" * 1000))
        await validator.expect("V0JobFinishedRequest")
        near, far = memory_pair(request=announcement(QUIET_EXTENSIONS))
        slow = Stuck(far)
        slow.go.set()
        deaf = await horde.validator(through=(near, slow))
        slow.go.clear()
        monkeypatch.setattr(JobStore, "messages", counted)
        await deaf.say(*[initial(job)] * 10)
        await until(lambda: reads > 0)
        await asyncio.sleep(0.02)
        assert reads < 4
        slow.go.set()
        for _ in range(10):
            await deaf.expect(*BEGUN, "V0JobFinishedRequest")


async def test_only_the_newest_results_come_unasked_and_all_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "REPLAY_JOBS", 1)
    async with open_horde(tmp_path) as horde:
        older, newer = await ended(horde, 2)
    async with open_horde(tmp_path) as horde:
        again = await horde.validator()
        assert (await again.expect(*BEGUN, "V0JobFinishedRequest"))["job_uuid"] == newer
        await again.say(V0CancelJobRequest(job_uuid=older))
        assert (await again.expect(*BEGUN, "V0JobFinishedRequest"))["job_uuid"] == older
        await again.say(initial(older))
        assert (await again.expect(*BEGUN, "V0JobFinishedRequest"))["job_uuid"] == older
        await again.say(V0CancelJobRequest(job_uuid=older))
        await again.silence()


async def test_a_result_asked_for_by_name_is_not_told_twice(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        await validator.channel.close()
        again = await horde.validator(early=[V0CancelJobRequest(job_uuid=job)])
        await again.expect(*BEGUN, "V0JobFinishedRequest")
        await again.silence()
        await again.say(finished_receipt(job), V0CancelJobRequest(job_uuid=job))
        await again.silence()

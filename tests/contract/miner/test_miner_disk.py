"""What a miner's peers are told to rely on is on its disk before: no job runs twice because the power failed."""

import uuid
from pathlib import Path

import pytest

from compute_horde.miner.store import JobStore
from compute_horde.miner.testing import finished, initial, open_horde, request, until
from compute_horde.protocol.validator_miner import V0ExecutorReadyRequest
from compute_horde.storage.testing import HeldDisk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> HeldDisk:
    held = HeldDisk()
    monkeypatch.setattr(JobStore, "settled", lambda _: held.settled())
    return held


@pytest.fixture
def job() -> str:
    return str(uuid.uuid4())


async def test_a_job_is_begun_once_its_acceptance_is_on_the_disk(tmp_path: Path, job: str, disk: HeldDisk) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        executor = await horde.executor()
        await executor.expect("V0InitialJobRequest")
        await executor.say(V0ExecutorReadyRequest(job_uuid=job))
        await validator.expect("V0ExecutorReadyRequest")
        await validator.say(request(job))
        await executor.silence()
        disk.let()
        await executor.expect("V0JobRequest")
        assert disk.asked == 1


async def test_an_executor_may_forget_a_result_once_it_is_on_the_disk(
    tmp_path: Path, job: str, disk: HeldDisk
) -> None:
    disk.let()
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        disk.errors = 1
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        await until(lambda: disk.asked == 3)
        await executor.silence()
        disk.let()
        assert await executor.hangup() == 1000


async def test_an_executor_keeps_a_result_that_the_miner_could_not_settle_before_its_stop(
    tmp_path: Path, job: str, disk: HeldDisk
) -> None:
    disk.let()
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        await horde.miner.stop()
        assert await executor.hangup() == 1001


async def test_an_executor_that_dials_again_keeps_its_result_until_it_is_on_the_disk(
    tmp_path: Path, job: str, disk: HeldDisk
) -> None:
    disk.let()
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        await executor.channel.close()
        again = await horde.executor()
        await again.silence()
        disk.let(2)
        assert "not waiting" in (await again.expect("GenericError"))["details"]
        assert await again.hangup() == 1000


async def test_an_executor_that_dials_again_keeps_a_result_that_a_stopping_miner_could_not_settle(
    tmp_path: Path, job: str, disk: HeldDisk
) -> None:
    disk.let()
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        await executor.channel.close()
        again = await horde.executor()
        await again.silence()
        disk.errors = 2
        await horde.miner.stop()
        assert await again.hangup() == 1001


async def test_the_executor_of_a_restored_job_waits_for_nothing(tmp_path: Path, job: str, disk: HeldDisk) -> None:
    disk.let()
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        await crashed.crash()
    async with open_horde(tmp_path) as horde:
        executor = await horde.executor()
        await executor.expect("V0JobRequest", "V0InitialJobRequest")

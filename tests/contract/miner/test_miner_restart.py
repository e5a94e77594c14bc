"""A miner that is killed or stopped at any moment picks its jobs up again; executors that die are replaced."""

import asyncio
import time
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from compute_horde.lifecycle.states import JobState
from compute_horde.miner import supervisor
from compute_horde.miner.store import JobStore
from compute_horde.miner.supervisor import RELAUNCHES
from compute_horde.miner.tables import jobs
from compute_horde.miner.testing import (
    BOB,
    TEST,
    FakeClock,
    Horde,
    finished,
    finished_receipt,
    initial,
    open_horde,
    request,
    until,
)
from compute_horde.protocol.base import Message
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.validator_miner import (
    V0ExecutionDoneRequest,
    V0ExecutorReadyRequest,
    V0MachineSpecsRequest,
    V0VolumesReadyRequest,
)
from compute_horde.storage.database import Database
from compute_horde.storage.errors import AlreadyRunning
from compute_horde.storage.migrate import migrate

BEGUN = ("V0AcceptJobRequest", "V0ExecutorReadyRequest")


@pytest.fixture
def job() -> str:
    return str(uuid.uuid4())


# the miner


async def test_a_job_under_way_gets_an_executor_with_the_same_token_at_once(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        token = (await crashed.launched()).token
        await crashed.crash()
        assert not (await crashed.launched()).ended, "an executor outlives its miner"
    async with open_horde(tmp_path) as horde:
        assert horde.miner.pool.free(TEST) == 1
        assert (await horde.launched()).token == token
        validator = await horde.validator()
        await validator.expect(*BEGUN)
        await asyncio.sleep(0.1)  # twice the reconnect limit: no job is lost because its miner was restarted
        executor = await horde.executor()
        await executor.expect("V0JobRequest", "V0InitialJobRequest")
        await executor.say(
            V0ExecutorReadyRequest(job_uuid=job), V0VolumesReadyRequest(job_uuid=job), finished(job)
        )
        await validator.expect("V0VolumesReadyRequest", "V0JobFinishedRequest")
        assert await executor.hangup() == 1000
        await validator.silence()
        await until(lambda: horde.miner.pool.free(TEST) == 2)


async def test_the_former_executor_may_finish_while_its_stand_by_waits(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        await crashed.crash()
    async with open_horde(tmp_path) as horde:
        former = await horde.executor()
        await former.expect("V0JobRequest", "V0InitialJobRequest")
        await former.say(finished(job))
        await (await horde.validator()).expect(*BEGUN, "V0JobFinishedRequest")
        assert not (await horde.launched()).killed, "it has time to find that the job is done"


async def test_an_orderly_stop_leaves_the_job_to_its_executor(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await horde.miner.stop()
        assert await executor.hangup() == 1001
        assert await validator.hangup() == 1001
        assert not (await horde.launched()).ended
        late = await horde.executor()
        assert await late.hangup() == 1001, "it is not turned away"
    async with open_horde(tmp_path) as horde:
        await (await horde.executor()).say(finished(job))
        await (await horde.validator()).expect(*BEGUN, "V0JobFinishedRequest")


async def test_a_stop_for_good_ends_jobs_and_executors(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await horde.miner.stop(end_jobs=True)
        assert (await validator.expect("V0HordeFailedRequest"))["reason"] == "executor_disconnected"
        assert await executor.hangup() == 1000
        assert (await horde.launched()).ended
    async with open_horde(tmp_path) as horde:
        assert horde.launcher.launched == []
        await (await horde.validator()).expect(*BEGUN, "V0HordeFailedRequest")


@pytest.mark.parametrize("stage", ["accepted", "ready", "requested", "volumes", "done"])
async def test_a_crash_at_each_stage(tmp_path: Path, job: str, stage: str) -> None:
    """The executor repeats all that it has to say after each restart; the validator hears each thing once."""
    own: list[Message] = [V0ExecutorReadyRequest(job_uuid=job), V0VolumesReadyRequest(job_uuid=job)]
    own += [V0ExecutionDoneRequest(job_uuid=job), V0MachineSpecsRequest(job_uuid=job, specs={})]
    heard = [type(message).__name__ for message in own]
    said = {"accepted": 0, "ready": 1, "requested": 1, "volumes": 2, "done": 4}[stage]
    async with open_horde(tmp_path) as crashed:
        validator = await crashed.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        executor = await crashed.executor()
        await executor.say(*own[: min(said, 1)])
        if stage not in ("accepted", "ready"):
            await validator.say(request(job))
            await executor.expect("V0InitialJobRequest", "V0JobRequest")
            await executor.say(*own[1:said])
        await validator.expect(*heard[:said])
        await crashed.crash()
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.expect("V0AcceptJobRequest", *heard[:said])
        executor = await horde.executor()
        await executor.say(own[0])
        if stage in ("accepted", "ready"):
            await validator.expect(*heard[said:1])
            await validator.say(request(job))
            await executor.expect("V0InitialJobRequest", "V0JobRequest")
        await executor.say(*own, finished(job))
        await validator.expect(*heard[max(said, 1) :], "V0JobFinishedRequest")
        await validator.silence()


async def test_two_crashes_in_a_row(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        await crashed.crash()
    async with open_horde(tmp_path) as crashed:
        await crashed.launched()
        await crashed.crash()
    async with open_horde(tmp_path) as horde:
        await (await horde.executor()).say(finished(job))
        await (await horde.validator()).expect(*BEGUN, "V0JobFinishedRequest")


async def test_a_place_is_taken_even_where_fewer_are_offered_now(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        await crashed.crash()
    async with open_horde(tmp_path, executors={}) as horde:
        await (await horde.executor()).say(finished(job))
        await (await horde.validator()).expect(*BEGUN, "V0JobFinishedRequest")


async def test_a_cancel_that_no_executor_hears_after_a_restart_ends_the_job(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        validator, executor = await crashed.begun(job)
        await validator.say(V0CancelJobRequest(job_uuid=job))
        await executor.expect("V0CancelJobRequest")
        await crashed.crash()
    async with open_horde(tmp_path, cancel_limit=0.05) as horde:
        end = await (await horde.validator()).expect(*BEGUN, "V0JobFailedRequest")
        assert end["context"]["problem"]["code"] == "cancelled"


async def test_the_time_of_a_job_goes_on_while_its_miner_is_down(tmp_path: Path, job: str) -> None:
    clock = FakeClock()
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        await crashed.crash()
    await set_deadline(tmp_path, time.time() - 1000)
    async with open_horde(tmp_path, timers=clock.timers, executor_reconnect_limit=5) as horde:
        validator = await horde.validator()
        await validator.expect(*BEGUN)
        await validator.silence()  # there may be a result that its executor could not deliver
        clock.now += 6
        await validator.expect("V0HordeFailedRequest")


async def test_a_wall_clock_that_was_set_back_makes_no_job_immortal(tmp_path: Path, job: str) -> None:
    clock = FakeClock()
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        await crashed.crash()
    await set_deadline(tmp_path, time.time() + 10**9 + 400, time.time() + 10**9)
    async with open_horde(tmp_path, timers=clock.timers) as horde:
        validator = await horde.validator()
        await validator.expect(*BEGUN)
        clock.now += 401
        await validator.expect("V0HordeFailedRequest")


async def set_deadline(folder: Path, at: float, accepted: float | None = None) -> None:
    database = Database(f"sqlite+aiosqlite:///{folder / 'miner.db'}")
    changes = {"deadline_at": at} | ({"created_at": accepted} if accepted else {})
    async with database.begin() as connection:
        await connection.execute(jobs.update().values(changes))
    await database.close()


async def test_one_database_has_one_miner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compute_horde.storage.sole.PATIENCE_S", 0.0)
    async with open_horde(tmp_path):
        with pytest.raises(AlreadyRunning, match="another miner"):
            async with open_horde(tmp_path):
                raise AssertionError("it must not start")
    async with open_horde(tmp_path):
        pass


# the executor


async def test_an_executor_that_dies_is_replaced_with_the_same_token(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, executor_reconnect_limit=60) as horde:
        validator, executor = await horde.begun(job)
        first = await horde.launched()
        first.end(-9)
        await executor.channel.close(1006)
        second = await horde.launched(2)
        assert second.token == first.token
        assert horde.miner.pool.free(TEST) == 1
        again = await horde.executor()
        await again.expect("V0JobRequest", "V0InitialJobRequest")
        await again.say(V0ExecutorReadyRequest(job_uuid=job), finished(job))
        await validator.expect("V0JobFinishedRequest")
        await until(lambda: horde.miner.pool.free(TEST) == 2)


@pytest.mark.parametrize("connected", [True, False])
async def test_one_that_dies_again_and_again_is_given_up(tmp_path: Path, job: str, connected: bool) -> None:
    async with open_horde(tmp_path, executor_reconnect_limit=60) as horde:
        if connected:
            validator, executor = await horde.begun(job)
        else:
            validator = await horde.validator()
            await validator.say(initial(job))
            await validator.expect("V0AcceptJobRequest")
        horde.launcher.doomed = RELAUNCHES
        (await horde.launched()).end(1)
        if connected:
            await executor.channel.close(1006)
        failure = await validator.expect("V0HordeFailedRequest")
        assert (failure["reason"], failure["reported_by"]) == ("executor_disconnected", "miner")
        await until(lambda: horde.miner.pool.free(TEST) == 2)
        await it_is_cleared_up_by_one_more(horde, 1 + RELAUNCHES)


async def it_is_cleared_up_by_one_more(horde: Horde, dead: int) -> None:
    """One more with the same token is launched for a job that is over: it is turned away, and removes things."""
    cleaner = await horde.launched(dead + 1)
    assert cleaner.token == horde.launcher.launched[0].token
    turned_away = await horde.executor(cleaner.token)
    await turned_away.expect("GenericError")
    cleaner.end(0)
    await asyncio.sleep(0.05)
    assert len(horde.launcher.launched) == dead + 1


@pytest.mark.parametrize("successors", [0, 1])
async def test_a_job_cancelled_between_two_executors_is_cleared_up_after_the_first(
    tmp_path: Path, job: str, successors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the pause before the second is launched, or before it has come."""
    if successors:
        monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0)
    async with open_horde(tmp_path, executor_reconnect_limit=60) as horde:
        validator, executor = await horde.begun(job)
        (await horde.launched()).end(-9)
        await executor.channel.close(1006)
        if successors:
            await horde.launched(2)
        await asyncio.sleep(0.01)
        await validator.say(V0CancelJobRequest(job_uuid=job))
        await validator.expect("V0JobFailedRequest")
        await it_is_cleared_up_by_one_more(horde, 1 + successors)


async def test_a_launch_that_fails_later_is_tried_again(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        horde.launcher.broken = True
        (await horde.launched()).end(1)
        await executor.channel.close(1006)
        await asyncio.sleep(0.15)  # one attempt fails
        horde.launcher.broken = False
        await horde.launched(2)
        await (await horde.executor()).say(finished(job))
        await validator.expect("V0JobFinishedRequest")


async def test_an_ended_executor_whose_connection_hangs_is_cut_off(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        _, executor = await horde.begun(job)
        (await horde.launched()).end(0)
        assert await executor.hangup() == 1001
        await horde.launched(2)


async def test_what_an_ended_executor_had_sent_still_counts(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, executor_reconnect_limit=1) as horde:
        validator, executor = await horde.begun(job)
        (await horde.launched()).end(0)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        assert len(horde.launcher.launched) == 1


async def test_without_any_executor_left_the_former_one_may_still_come_back(tmp_path: Path, job: str) -> None:
    """The stand-bys die, or cannot be started; the executor of before the restart does not."""
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        token = (await crashed.launched()).token
        await crashed.crash()
    async with open_horde(tmp_path, executor_reconnect_limit=5) as horde:
        standby = await horde.launched()
        horde.launcher.broken = True
        former = await horde.executor(token)
        standby.end(1)
        await asyncio.sleep(0.1)
        await former.channel.close(1006)
        await asyncio.sleep(1.2)  # all attempts to launch one more have failed
        again = await horde.executor(token)
        await again.expect("V0JobRequest", "V0InitialJobRequest")
        await again.channel.close(1006)
        again = await horde.executor(token)
        await again.say(finished(job))
        await (await horde.validator()).expect(*BEGUN, "V0JobFinishedRequest")


async def test_without_any_executor_left_a_job_is_lost_after_the_reconnect_limit(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(job)
        await crashed.crash()
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.expect(*BEGUN)
        horde.launcher.doomed = RELAUNCHES
        (await horde.launched()).end(1)
        assert (await validator.expect("V0HordeFailedRequest"))["reason"] == "executor_disconnected"
        await until(lambda: horde.miner.pool.free(TEST) == 2)


async def test_a_job_that_ends_while_its_executor_is_to_be_replaced(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        (await horde.launched()).end(1)
        await validator.say(finished_receipt(job))
        await validator.expect("V0HordeFailedRequest")
        await until(lambda: horde.miner.pool.free(TEST) == 2)
        await executor.hangup()
        await it_is_cleared_up_by_one_more(horde, 1)


async def test_a_job_that_is_cancelled_while_its_executor_is_to_be_replaced(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        (await horde.launched()).end(-9)
        await executor.channel.close(1006)
        await validator.say(V0CancelJobRequest(job_uuid=job))
        await validator.expect("V0JobFailedRequest")
        await it_is_cleared_up_by_one_more(horde, 1)


async def test_what_cannot_be_cleared_up_now_is_left_to_the_next_start(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        horde.launcher.broken = True
        (await horde.launched()).end(1)
        await validator.say(finished_receipt(job))
        await validator.expect("V0HordeFailedRequest")
        await executor.hangup()
        await until(lambda: horde.miner.pool.free(TEST) == 2)


# old rows


async def test_rows_of_the_previous_release_are_picked_up(tmp_path: Path, job: str) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'miner.db'}")
    await migrate(database, "miner", "0002")
    values = {
        "job_uuid": job,
        "validator": BOB.ss58_address,
        "executor_class": TEST.value,
        "token": f"{job}-token",
        "state": JobState.EXECUTOR_READY.value,
        "initial": initial(job, BOB).to_frame(),
        "request": request(job, BOB).to_frame(),
        "created_at": time.time() - 5,
        "updated_at": time.time() - 5,
        "deadline_at": time.time() + 60,
        "acknowledged": False,
        "cancel_requested": False,
    }
    frame = f'{{"message_type":"V0AcceptJobRequest","job_uuid":"{job}"}}'
    message = sa.text(
        "INSERT INTO job_messages (job_uuid, type, frame, created_at) VALUES (:job, :type, :frame, 0)"
    )
    async with database.begin() as connection:
        await connection.execute(jobs.insert().values(values))
        await connection.execute(message, {"job": job, "type": "V0AcceptJobRequest", "frame": frame})
    await database.close()
    async with open_horde(tmp_path) as horde:
        executor = await horde.executor(f"{job}-token")
        await executor.expect("V0JobRequest", "V0InitialJobRequest")
        await executor.say(finished(job))
        bob = await horde.validator(BOB)
        await bob.expect("V0AcceptJobRequest", "V0JobFinishedRequest")
    assert await state_of(tmp_path, job) is JobState.COMPLETED


async def state_of(folder: Path, job: str) -> JobState:
    database = Database(f"sqlite+aiosqlite:///{folder / 'miner.db'}")
    row = await JobStore(database).find(job)
    await database.close()
    assert row is not None
    return row.state

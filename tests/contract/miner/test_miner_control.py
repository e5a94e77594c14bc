"""Cancelling a job and following its output through the miner, scenario by scenario."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.lifecycle.states import JobState
from compute_horde.miner import executors
from compute_horde.miner.store import JobStore
from compute_horde.miner.testing import BOB, TEST, Horde, Peer, Stuck, finished, initial, open_horde, until
from compute_horde.protocol.base import Message
from compute_horde.protocol.control import (
    LOGS_PIECE_CHARS,
    MAX_LOGS_FRAME_BYTES,
    MAX_LOGS_WAITING,
    LogPiece,
    V0CancelJobRequest,
    V0JobLogsRequest,
    V0JobLogsResponse,
)
from compute_horde.protocol.enums import HordeFailureReason, Participant
from compute_horde.protocol.extensions import Extension, announcement
from compute_horde.protocol.validator_miner import (
    GenericError,
    V0HordeFailedRequest,
    V0JobFailedRequest,
    V0VolumesReadyRequest,
)
from compute_horde.storage.database import Database
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.transport.memory import memory_pair

BEGUN = ("V0AcceptJobRequest", "V0ExecutorReadyRequest")


@pytest.fixture
def job() -> str:
    return str(uuid.uuid4())


def cancel(job: str) -> V0CancelJobRequest:
    return V0CancelJobRequest(job_uuid=job)


def ask(job: str, name: str = "a", position: int = 3) -> V0JobLogsRequest:
    return V0JobLogsRequest(job_uuid=job, request_id=name, position=position)


def answer(job: str, name: str = "a", text: str = "text") -> V0JobLogsResponse:
    pieces = [LogPiece(stream="stdout", offset=3, text=text)]
    return V0JobLogsResponse(job_uuid=job, request_id=name, state="more", position=7, pieces=pieces)


async def cancelled(validator: Peer, *before: str) -> dict[str, Any]:
    """The validator hears that the job was cancelled, after other things."""
    end = await validator.expect(*before, "V0JobFailedRequest")
    assert end["context"]["problem"]["code"] == "cancelled", end
    assert end["context"]["problem"]["fault"] == "user"
    return end


async def freed(horde: Horde) -> None:
    await until(lambda: horde.miner.pool.free(TEST) == 2)


async def state_of(folder: Path, job: str) -> JobState:
    database = Database(f"sqlite+aiosqlite:///{folder / 'miner.db'}")
    row = await JobStore(database).find(job)
    await database.close()
    assert row is not None
    return row.state


def executors_end(job: str, **output: Any) -> Message:
    found = problem("cancelled", "The job was cancelled.")
    return to_wire(found, job, reported_by=Participant.EXECUTOR, **output)


# cancelling


async def test_a_connected_executor_ends_the_job_itself(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(cancel(job), cancel(job))
        assert (await executor.expect("V0CancelJobRequest"))["job_uuid"] == job
        await executor.silence()
        await executor.say(executors_end(job, stdout="so far", stderr="err"))
        end = await cancelled(validator)
        assert (end["docker_process_stdout"], end["docker_process_stderr"]) == ("so far", "err")
        await freed(horde)
        assert await state_of(tmp_path, job) is JobState.CANCELLED
        await validator.say(cancel(job))
        await validator.silence()


async def test_a_database_that_fails_keeps_no_job_from_being_cancelled(
    tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_store: JobStore, _job_uuid: str) -> None:
        raise DatabaseUnavailable("database is locked")

    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        monkeypatch.setattr(JobStore, "request_cancel", fail)
        await validator.say(cancel(job))
        assert (await executor.expect("V0CancelJobRequest"))["job_uuid"] == job
        await executor.say(executors_end(job))
        await cancelled(validator)


async def test_an_executor_that_does_not_stop_is_killed(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, cancel_limit=0.02) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(cancel(job))
        await executor.expect("V0CancelJobRequest")
        end = await cancelled(validator)
        assert end["stage"] == "volume_download"
        await until(lambda: horde.launcher.launched[0].killed)
        assert await executor.hangup() == 1000
        await freed(horde)


async def test_an_executor_that_has_not_connected_is_killed_at_once(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        launched = await horde.launched()
        await validator.say(cancel(job))
        assert (await cancelled(validator))["stage"] == "executor_startup"
        await until(lambda: launched.killed)
        await freed(horde)
        late = await horde.executor(launched.token)
        assert "not waiting" in (await late.expect("GenericError"))["details"]


async def test_an_executor_that_is_not_launched_yet_never_begins(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        horde.launcher.slow = True
        validator = await horde.validator()
        await validator.say(initial(job), cancel(job))
        await cancelled(validator, "V0AcceptJobRequest")
        await freed(horde)
        assert horde.launcher.launched == []


@pytest.mark.parametrize("extensions", [frozenset[Extension](), frozenset({Extension.LOGS})])
async def test_an_executor_of_the_existing_network_is_killed_at_once(
    tmp_path: Path, job: str, extensions: frozenset[Extension]
) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job, extensions)
        await validator.say(cancel(job))
        await cancelled(validator)
        assert await executor.hangup() == 1000, "it is sent nothing that it does not know"
        await until(lambda: horde.launcher.launched[0].killed)


@pytest.mark.parametrize(
    "report",
    [
        V0JobFailedRequest(job_uuid="", message="exit code 143", docker_process_stdout="so far"),
        V0HordeFailedRequest(
            job_uuid="",
            reported_by=Participant.EXECUTOR,
            message="broken",
            reason=HordeFailureReason.GENERIC_ERROR,
        ),
        GenericError(details="broken"),
    ],
)
async def test_any_failure_after_a_cancel_is_its_end(tmp_path: Path, job: str, report: Message) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(cancel(job))
        await executor.expect("V0CancelJobRequest")
        own = {} if isinstance(report, GenericError) else {"job_uuid": job}
        await executor.say(report.model_copy(update=own))
        end = await cancelled(validator)
        assert end["docker_process_stdout"] == getattr(report, "docker_process_stdout", None)
        assert await state_of(tmp_path, job) is JobState.CANCELLED


async def test_an_executor_that_is_lost_after_a_cancel_is_nobodys_failure(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, cancel_limit=0.05) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(cancel(job))
        await executor.expect("V0CancelJobRequest")
        await executor.channel.close(1006)
        await cancelled(validator)
        await freed(horde)


async def test_a_job_that_finished_all_the_same_has_finished(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(cancel(job))
        await executor.expect("V0CancelJobRequest")
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        assert await state_of(tmp_path, job) is JobState.COMPLETED


async def test_unknown_and_other_peoples_jobs_are_left_alone(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        bob = await horde.validator(BOB)
        await bob.say(cancel(job))
        await validator.say(cancel(str(uuid.uuid4())))
        await bob.silence()
        await validator.silence()
        await executor.silence()


async def test_a_validator_that_comes_back_hears_of_the_end(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(cancel(job))
        await executor.expect("V0CancelJobRequest")
        await validator.channel.close()
        await executor.say(executors_end(job))
        await until(lambda: horde.miner.pool.free(TEST) == 2)
        await cancelled(await horde.validator(), *BEGUN)


async def test_an_executor_that_comes_back_is_told_again_but_gains_no_time(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, executor_reconnect_limit=5, cancel_limit=0.3) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(cancel(job))
        await executor.expect("V0CancelJobRequest")
        for _ in range(2):
            await executor.channel.close(1006)
            executor = await horde.executor()
            await executor.expect("V0JobRequest", "V0InitialJobRequest", "V0CancelJobRequest")
        await cancelled(validator)


async def test_a_restart_does_not_forget_that_a_job_was_cancelled(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        validator, executor = await crashed.begun(job)
        await validator.say(cancel(job))
        await executor.expect("V0CancelJobRequest")
        token = (await crashed.launched()).token
        await crashed.crash()
        async with open_horde(tmp_path, executor_reconnect_limit=5) as horde:
            executor = await horde.executor(token)
            await executor.expect("V0JobRequest", "V0InitialJobRequest", "V0CancelJobRequest")
            await executor.say(executors_end(job))
            await cancelled(await horde.validator(), *BEGUN)


async def test_after_a_restart_an_executor_without_the_extension_is_turned_out(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as crashed:
        validator, executor = await crashed.begun(job)
        await validator.say(cancel(job))
        await executor.expect("V0CancelJobRequest")
        token = (await crashed.launched()).token
        await crashed.crash()
        async with open_horde(tmp_path, executor_reconnect_limit=5) as horde:
            executor = await horde.executor(token, extensions=())
            await cancelled(await horde.validator(), *BEGUN)
            await executor.expect("V0JobRequest", "V0InitialJobRequest")
            assert await executor.hangup() == 1000


# following


async def test_a_request_goes_down_and_its_answer_up(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(ask(job))
        assert (await executor.expect("V0JobLogsRequest"))["position"] == 3
        await executor.say(answer(job, "unknown"), answer(job), answer(job))
        got = await validator.expect("V0JobLogsResponse")
        assert got == answer(job).model_dump(mode="json")
        await validator.silence()


async def test_an_answer_takes_the_way_its_request_came(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        other = await horde.validator()
        await other.say(ask(job))
        await executor.expect("V0JobLogsRequest")
        await validator.say(ask(job, "b"))
        await executor.expect("V0JobLogsRequest")
        await other.channel.close()
        await executor.say(answer(job), answer(job, "b"), V0VolumesReadyRequest(job_uuid=job))
        assert (await validator.expect("V0JobLogsResponse"))["request_id"] == "b"
        await validator.expect("V0VolumesReadyRequest")


async def test_output_is_not_sent_again_to_a_validator_that_comes_back(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(ask(job))
        await executor.expect("V0JobLogsRequest")
        await executor.say(answer(job))
        await validator.expect("V0JobLogsResponse")
        await validator.channel.close()
        again = await horde.validator()
        await again.expect(*BEGUN)
        await again.silence()


@pytest.mark.parametrize("extensions", [(), (Extension.CANCEL,)])
async def test_without_an_executor_that_can_nobody_can_tell(tmp_path: Path, job: str, extensions: Any) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job, extensions)
        await validator.say(ask(job), ask(str(uuid.uuid4()), "b"))
        for name in ("a", "b"):
            got = await validator.expect("V0JobLogsResponse")
            assert (got["request_id"], got["state"], got["position"]) == (name, "unavailable", 3)
        await executor.silence()


async def test_before_the_executor_connects_and_after_it_is_lost(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, executor_reconnect_limit=5) as horde:
        validator = await horde.validator()
        await validator.say(initial(job), ask(job))
        got = await validator.expect("V0AcceptJobRequest", "V0JobLogsResponse")
        assert got["state"] == "unavailable"
        executor = await horde.executor()
        await executor.expect("V0InitialJobRequest")
        await validator.say(ask(job))
        await executor.expect("V0JobLogsRequest")
        await executor.channel.close(1006)
        assert (await validator.expect("V0JobLogsResponse"))["state"] == "unavailable"


async def test_the_end_of_the_job_ends_those_that_wait_and_those_that_come(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(ask(job))
        await executor.expect("V0JobLogsRequest")
        await executor.say(finished(job))
        got = await validator.expect("V0JobFinishedRequest", "V0JobLogsResponse")
        assert (got["state"], got["pieces"]) == ("ended", [])
        await validator.say(ask(job, "b"))
        assert (await validator.expect("V0JobLogsResponse"))["state"] == "ended"


async def test_another_validator_learns_nothing(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        _, executor = await horde.begun(job)
        bob = await horde.validator(BOB)
        await bob.say(ask(job))
        assert (await bob.expect("V0JobLogsResponse"))["state"] == "unavailable"
        await executor.silence()


async def test_a_validator_that_announced_nothing_is_sent_nothing(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        _, executor = await horde.begun(job)
        plain = await horde.validator(extensions=())
        await plain.say(ask(job))
        await plain.silence()
        await executor.silence()


async def test_an_answer_that_is_too_large_is_dropped(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(ask(job), ask(job, "b"))
        await executor.expect("V0JobLogsRequest", "V0JobLogsRequest")
        await executor.say(answer(job, text="x" * MAX_LOGS_FRAME_BYTES), answer(job, "b", "x" * LOGS_PIECE_CHARS))
        assert (await validator.expect("V0JobLogsResponse"))["request_id"] == "b"


async def test_too_many_requests_at_a_time(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        for number in range(MAX_LOGS_WAITING + 1):
            await validator.say(ask(job, str(number)))
        got = await validator.expect("V0JobLogsResponse")
        assert (got["request_id"], got["state"], got["pieces"]) == ("0", "more", [])
        await executor.say(answer(job, "0"), answer(job, "16"))
        assert (await validator.expect("V0JobLogsResponse"))["request_id"] == "16"


async def stuck_executor(horde: Horde, job: str) -> tuple[Peer, Stuck]:
    """A validator, and an executor that takes nothing after the initial request."""
    validator = await horde.validator()
    await validator.say(initial(job))
    await validator.expect("V0AcceptJobRequest")
    near, far = memory_pair(request=announcement())
    stuck = Stuck(far)
    stuck.go.set()
    await horde.executor_at(stuck)
    await Peer(near).expect("V0InitialJobRequest")
    stuck.go.clear()
    return validator, stuck


async def test_a_request_that_an_executor_does_not_take_is_given_up(
    tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "LOGS_SEND_SECONDS", 0.01)
    async with open_horde(tmp_path) as horde:
        validator, _ = await stuck_executor(horde, job)
        await validator.say(ask(job))
        assert (await validator.expect("V0JobLogsResponse"))["state"] == "unavailable"


async def test_an_executor_that_takes_nothing_holds_up_no_validator(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, cancel_limit=0.02) as horde:
        validator, stuck = await stuck_executor(horde, job)
        for number in range(3 * MAX_LOGS_WAITING):
            await validator.say(ask(job, str(number)))
        await validator.say(cancel(job))
        for _ in range(2 * MAX_LOGS_WAITING):
            assert (await validator.expect("V0JobLogsResponse"))["state"] == "more"
        await cancelled(validator)
        for _ in range(MAX_LOGS_WAITING):
            assert (await validator.expect("V0JobLogsResponse"))["state"] == "ended"
        stuck.go.set()
        await freed(horde)

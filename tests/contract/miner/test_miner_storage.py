"""A database that is full or away: nothing is acknowledged that is not stored, and nothing is lost."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from compute_horde.lifecycle.states import JobState
from compute_horde.miner import desk, retries, service
from compute_horde.miner.store import Envelope, JobStore
from compute_horde.miner.tables import jobs
from compute_horde.miner.testing import (
    ALICE,
    TEST,
    FakeClock,
    Horde,
    Peer,
    accepted_receipt,
    finished,
    finished_receipt,
    initial,
    open_horde,
    request,
    until,
)
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.receipts import page_at
from compute_horde.protocol.validator_miner import (
    V0ExecutorReadyRequest,
    V0MachineSpecsRequest,
    V0VolumesReadyRequest,
)
from compute_horde.storage.database import Database
from compute_horde.storage.errors import DatabaseFull, DatabaseUnavailable
from compute_horde.storage.migrate import migrate

BEGUN = ("V0AcceptJobRequest", "V0ExecutorReadyRequest")
WRITES = ("accept", "advance", "post", "drop", "set_request", "request_cancel", "acknowledge", "write")
READS = ("find", "messages", "pending")


class Disk:
    """The store's database, which a test fills up or unplugs. ``failed``: how often each method was refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = self.away = self.forgetful = False
        self.failed: dict[str, int] = {}
        for name in (*WRITES, *READS):
            monkeypatch.setattr(JobStore, name, self._guarded(name, getattr(JobStore, name)))

    def _guarded(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(store: JobStore, *arguments: Any, **named: Any) -> Any:
            if self.forgetful and name in WRITES:
                await method(store, *arguments, **named)
            if self.away or ((self.full or self.forgetful) and name in WRITES):
                self.failed[name] = self.failed.get(name, 0) + 1
                raise DatabaseUnavailable("away") if self.away else DatabaseFull("database or disk is full")
            return await method(store, *arguments, **named)

        return guarded


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_SECONDS", 0.01)
    return Disk(monkeypatch)


@pytest.fixture
def job() -> str:
    return str(uuid.uuid4())


async def refused(disk: Disk, name: str) -> None:
    """The database has refused something several times."""
    before = disk.failed.get(name, 0)
    await until(lambda: disk.failed.get(name, 0) >= before + 3)


async def not_stored(validator: Peer) -> None:
    answer = await validator.expect("V0DeclineJobRequest")
    found = Problem.from_context(answer["context"], answer["message"])
    assert found is not None
    assert (found.code, found.retryable) == ("job_not_stored", True)


async def test_on_a_full_disk_jobs_are_declined_until_there_is_room(tmp_path: Path, job: str, disk: Disk) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        disk.full = True
        await validator.say(initial(job))
        await not_stored(validator)
        assert horde.miner.pool.free(TEST) == 2
        disk.full = False
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")


async def test_without_a_database_jobs_are_declined(tmp_path: Path, job: str, disk: Disk) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        disk.away = True
        await validator.say(initial(job))
        await not_stored(validator)


async def test_a_job_that_was_stored_though_it_was_declined_is_taken_back(
    tmp_path: Path, job: str, disk: Disk
) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        disk.forgetful = True
        await validator.say(initial(job))
        await not_stored(validator)
        disk.forgetful = False
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        await asyncio.sleep(0.05)
        await (await horde.executor()).expect("V0InitialJobRequest")


async def test_a_job_at_work_is_never_declined(tmp_path: Path, job: str, disk: Disk) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        disk.away = True
        await validator.say(initial(job))
        assert "ask again" in (await validator.expect("GenericError"))["details"]
        disk.away = False
        await validator.say(initial(job))
        await validator.expect(*BEGUN)
        await executor.silence()


async def test_what_an_executor_reports_waits_for_room_and_comes_once_in_order(
    tmp_path: Path, job: str, disk: Disk
) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        disk.full = True
        specs = V0MachineSpecsRequest(job_uuid=job, specs={})
        await executor.say(V0VolumesReadyRequest(job_uuid=job), specs, specs, finished(job))
        await refused(disk, "advance")
        await validator.silence()
        disk.full = False
        await validator.expect("V0VolumesReadyRequest", "V0MachineSpecsRequest", "V0JobFinishedRequest")
        assert await executor.hangup() == 1000
        await validator.silence()


async def test_a_commit_whose_answer_was_lost_is_not_repeated(tmp_path: Path, job: str, disk: Disk) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        disk.forgetful = True
        await executor.say(V0VolumesReadyRequest(job_uuid=job))
        await refused(disk, "advance")
        disk.forgetful = False
        await validator.expect("V0VolumesReadyRequest")
        disk.forgetful = True
        await executor.say(V0MachineSpecsRequest(job_uuid=job, specs={}))
        await refused(disk, "post")
        disk.forgetful = False
        await validator.expect("V0MachineSpecsRequest")
        again = await horde.validator()
        await again.say(initial(job))
        await again.expect(*BEGUN, "V0VolumesReadyRequest", "V0MachineSpecsRequest")
        await again.silence()


async def test_a_result_that_cannot_be_stored_survives_the_miners_stop(
    tmp_path: Path, job: str, disk: Disk
) -> None:
    async with open_horde(tmp_path) as horde:
        _, executor = await horde.begun(job)
        disk.full = True
        await executor.say(finished(job))
        await refused(disk, "advance")
        await horde.miner.stop()
        assert await executor.hangup() == 1001, "it is not told that its result is stored"
    disk.full = False
    async with open_horde(tmp_path) as horde:
        await (await horde.executor()).say(finished(job))
        await (await horde.validator()).expect(*BEGUN, "V0JobFinishedRequest")


async def test_a_stop_for_good_does_not_wait_for_room(tmp_path: Path, job: str, disk: Disk) -> None:
    async with open_horde(tmp_path) as horde:
        _, executor = await horde.begun(job)
        disk.full = True
        began = time.monotonic()
        await horde.miner.stop(end_jobs=True)
        assert time.monotonic() - began < 4
        assert await executor.hangup() == 1001


async def test_a_job_request_reaches_the_executor_when_it_is_stored(tmp_path: Path, job: str, disk: Disk) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        executor = await horde.executor()
        await executor.expect("V0InitialJobRequest")
        await executor.say(V0ExecutorReadyRequest(job_uuid=job))
        await validator.expect("V0ExecutorReadyRequest")
        disk.full = True
        await validator.say(request(job))
        await refused(disk, "set_request")
        await executor.silence()
        disk.full = False
        await executor.expect("V0JobRequest")


async def test_a_job_that_ends_before_its_request_could_be_stored(tmp_path: Path, job: str, disk: Disk) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        executor = await horde.executor()
        await executor.say(V0ExecutorReadyRequest(job_uuid=job))
        await executor.expect("V0InitialJobRequest")
        await validator.expect("V0ExecutorReadyRequest")
        disk.full = True
        await validator.say(request(job), V0CancelJobRequest(job_uuid=job))
        await executor.expect("V0CancelJobRequest")
        await refused(disk, "set_request")
        await executor.channel.close()
        disk.full = False


async def test_receipts_and_cancels_wait_for_room(tmp_path: Path, job: str, disk: Disk) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        disk.full = True
        await validator.say(accepted_receipt(job), V0CancelJobRequest(job_uuid=job))
        await executor.expect("V0CancelJobRequest")
        await refused(disk, "write")
        await refused(disk, "request_cancel")
        await executor.say(finished(job))
        disk.full = False
        await validator.expect("V0JobFinishedRequest")
        disk.full = True
        await validator.say(finished_receipt(job))
        await refused(disk, "acknowledge")
        disk.full = False
        await until(lambda: disk.failed["acknowledge"] > 0)
        assert horde.miner.book is not None
        page = page_at(time.time())

        async def kinds() -> int:
            assert horde.miner.book is not None
            found = [await horde.miner.book.page(number) for number in (page - 1, page, page + 1)]
            return sum(one.body.count(b"\n") for one in found if one)

        for _ in range(500):
            if await kinds() == 3:
                break
            await asyncio.sleep(0.005)
        assert await kinds() == 3
        await (await horde.validator()).silence()


async def test_what_is_kept_in_memory_is_bounded(
    tmp_path: Path, job: str, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MAX_KEPT", 1)
    async with open_horde(tmp_path) as horde:
        validator, _ = await horde.begun(job)
        disk.full = True
        await validator.say(accepted_receipt(job))
        await refused(disk, "write")
        await validator.say(accepted_receipt(job))
        assert "Internal error" in (await validator.expect("GenericError"))["details"]
        disk.full = False


async def test_a_validator_that_comes_while_the_database_is_away(tmp_path: Path, job: str, disk: Disk) -> None:
    over = str(uuid.uuid4())
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(over)
        await executor.say(finished(over))
        await validator.expect("V0JobFinishedRequest")
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        other = await horde.validator()
        disk.away = True
        await validator.channel.close()
        again = await horde.validator()
        await refused(disk, "messages")
        await again.silence()
        disk.away = False
        heard = [
            (message["job_uuid"], message["message_type"]) for message in [await again.hear() for _ in range(4)]
        ]
        assert sorted(heard) == sorted(
            [(job, "V0AcceptJobRequest"), *((over, name) for name in (*BEGUN, "V0JobFinishedRequest"))]
        )
        await other.hear()


async def test_deadlines_of_a_job_hold_when_there_is_room_again(tmp_path: Path, job: str, disk: Disk) -> None:
    clock = FakeClock()
    async with open_horde(tmp_path, timers=clock.timers) as horde:
        validator, _ = await horde.begun(job)
        disk.full = True
        clock.now += 3600
        await refused(disk, "advance")
        disk.full = False
        await validator.expect("V0HordeFailedRequest")


@pytest.mark.parametrize("lost", ["its last state", "all of it"])
async def test_a_job_that_a_failed_database_server_has_forgotten_ends(tmp_path: Path, job: str, lost: str) -> None:
    """PostgreSQL writes its last commits to the disk a moment later: a miner that lives on knows more than it."""
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        database = Database(horde.settings.database_url)
        async with database.begin() as connection:
            back = jobs.update().values(state=JobState.ACCEPTED.value)
            await connection.execute(back if lost == "its last state" else jobs.delete())
        await executor.say(V0VolumesReadyRequest(job_uuid=job), finished(job))
        await validator.expect("V0VolumesReadyRequest", "V0JobFinishedRequest")
        assert await executor.hangup() == 1000
        assert [row.state for row in [await JobStore(database).find(job)] if row] == [JobState.COMPLETED]
        await database.close()


# housekeeping


async def fill(store: JobStore, database: Database, count: int, **changes: Any) -> None:
    values = {
        "validator": "v",
        "executor_class": TEST.value,
        "initial": "{}",
        "created_at": 0.0,
        "updated_at": 0.0,
        "deadline_at": 0.0,
        "acknowledged": False,
        "cancel_requested": False,
    }
    rows = [values | {"job_uuid": str(uuid.uuid4()), "token": str(uuid.uuid4())} | changes for _ in range(count)]
    async with database.begin() as connection:
        await connection.execute(jobs.insert(), rows)
    for row in rows:
        await store.post(row["job_uuid"], Envelope("V0AcceptJobRequest", "{}"))


async def test_old_jobs_are_forgotten_in_steps_and_those_under_way_never(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'miner.db'}")
    await migrate(database, "miner")
    store = JobStore(database)
    await fill(store, database, 450, state=JobState.COMPLETED.value)
    await fill(store, database, 3, state=JobState.EXECUTOR_READY.value)
    await fill(store, database, 2, state=JobState.FAILED.value, updated_at=1000.0)
    assert await store.purge(500) == 450
    assert await store.purge(500) == 0
    assert len(await store.under_way()) == 3
    assert len(await store.pending("v")) == 2
    async with database.read() as connection:
        left = await connection.exec_driver_sql("SELECT count(*) FROM job_messages")
        assert left.scalar_one() == 5
    await database.close()


async def test_a_miner_forgets_what_is_past_its_retention(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
    async with open_horde(tmp_path, retention=0) as horde:
        await kept_house(horde)
        await (await horde.validator()).silence()


async def kept_house(horde: Horde) -> None:
    """The first round of housekeeping is over."""
    database = Database(horde.settings.database_url)
    for _ in range(500):
        async with database.read() as connection:
            if not (await connection.exec_driver_sql("SELECT count(*) FROM jobs")).scalar_one():
                break
        await asyncio.sleep(0.005)
    await database.close()


async def test_validators_that_never_acknowledge_cost_no_memory_for_long(
    tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "UNHEARD_SECONDS", -60)
    monkeypatch.setattr(service, "HOUSEKEEPING_SECONDS", 0.01)
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        await asyncio.sleep(0.3)
        await validator.say(initial(job))
        await validator.expect(*BEGUN, "V0JobFinishedRequest")
        late = await horde.executor((await horde.launched()).token)
        assert "No job waiting" in (await late.expect("GenericError"))["details"]


async def test_what_was_left_of_a_declined_job_does_not_stand_in_its_way(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        database = Database(horde.settings.database_url)
        mine = {"job_uuid": job, "validator": ALICE.ss58_address}
        await fill(JobStore(database), database, 1, state=JobState.ACCEPTED.value, **mine)
        await database.close()
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        await (await horde.executor()).expect("V0InitialJobRequest")
        await validator.silence()

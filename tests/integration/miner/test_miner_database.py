"""The miner on a real SQLite file and on a real PostgreSQL."""

import uuid
from pathlib import Path

import pytest
from tests.postgres import running_postgres

from compute_horde.miner.store import Envelope, JobStore
from compute_horde.miner.testing import (
    TEST,
    accepted_receipt,
    finished,
    finished_receipt,
    initial,
    open_horde,
    request,
    until,
)
from compute_horde.protocol.receipts import PAGE_SECONDS
from compute_horde.protocol.validator_miner import (
    V0ExecutorReadyRequest,
    V0MachineSpecsRequest,
    V0VolumesReadyRequest,
)
from compute_horde.storage.database import Database
from compute_horde.storage.errors import AlreadyRunning

BEGUN = ("V0AcceptJobRequest", "V0ExecutorReadyRequest")


@pytest.fixture
def job() -> str:
    return str(uuid.uuid4())


async def test_a_job_a_crash_and_its_end(tmp_path: Path, database_url: str, job: str) -> None:
    async with open_horde(tmp_path, database_url=database_url) as crashed:
        validator, executor = await crashed.begun(job)
        await validator.say(accepted_receipt(job))
        specs = V0MachineSpecsRequest(job_uuid=job, specs={"a": "\N{SNOWMAN}\x00"})
        await executor.say(V0VolumesReadyRequest(job_uuid=job), specs, specs)
        await validator.expect("V0VolumesReadyRequest", "V0MachineSpecsRequest")
        await crashed.crash()
    async with open_horde(tmp_path, database_url=database_url) as horde:
        validator = await horde.validator()
        await validator.expect(*BEGUN, "V0VolumesReadyRequest", "V0MachineSpecsRequest")
        executor = await horde.executor()
        await executor.expect("V0JobRequest", "V0InitialJobRequest")
        await executor.say(specs, finished(job, docker_process_stdout="\x00é"))
        assert (await validator.expect("V0JobFinishedRequest"))["docker_process_stdout"] == "\x00é"
        await validator.channel.close()
    async with open_horde(tmp_path, database_url=database_url) as horde:
        validator = await horde.validator()
        await validator.expect(*BEGUN, "V0VolumesReadyRequest", "V0MachineSpecsRequest", "V0JobFinishedRequest")
        await validator.say(finished_receipt(job), finished_receipt(job), "{")
        await validator.expect("GenericError")
        await (await horde.validator()).silence()
        book = horde.miner.book
        assert book is not None
        pages = [
            await book.page(int(finished_receipt(job).payload.timestamp.timestamp() // PAGE_SECONDS) + n)
            for n in (-1, 0)
        ]
        assert sum(page.body.count(b"\n") for page in pages if page) == 3


async def test_a_step_that_was_carried_out_may_be_repeated(tmp_path: Path, database_url: str, job: str) -> None:
    async with open_horde(tmp_path, database_url=database_url) as horde:
        await horde.begun(job)
        database = Database(database_url)
        store = JobStore(database)
        row = await store.find(job)
        assert row is not None
        later = type(row.state)("volumes_ready")
        message = Envelope("V0VolumesReadyRequest", "{}")
        assert await store.advance(job, row.state, later, message)
        assert await store.advance(job, row.state, later, message)
        assert not await store.advance(job, row.state, type(row.state)("execution_done"), message)
        for _ in range(2):
            await store.post(job, Envelope("V0MachineSpecsRequest", "{}"))
        assert [each.type for each in await store.messages(job)] == [*BEGUN, message.type, "V0MachineSpecsRequest"]
        light = await store.find(job, frames=False)
        assert light is not None
        assert (light.initial, light.request, light.token) == ("", None, row.token)
        await store.drop(job)
        assert await store.messages(job) == []
        await database.close()


async def test_ended_jobs_are_purged(tmp_path: Path, database_url: str, job: str) -> None:
    async with open_horde(tmp_path, database_url=database_url) as horde:
        validator, executor = await horde.begun(job)
        await executor.say(finished(job))
        await validator.expect("V0JobFinishedRequest")
        database = Database(database_url)
        store = JobStore(database)
        assert await store.purge(1) == 0
        assert await store.purge(10**11) == 1
        assert await store.find(job) is None
        await database.close()


async def test_one_database_has_one_miner(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_horde(tmp_path, database_url=database_url):
        with pytest.raises(AlreadyRunning, match="another miner"):
            async with open_horde(tmp_path, database_url=database_url):
                raise AssertionError("it must not start")


async def test_a_database_server_that_is_restarted_loses_nothing(tmp_path: Path, job: str) -> None:
    with running_postgres() as server:
        url = server.url(server.fresh())
        async with open_horde(tmp_path, database_url=url) as horde:
            validator, executor = await horde.begun(job)
            server.stop()
            await executor.say(V0VolumesReadyRequest(job_uuid=job), finished(job))
            await validator.say(initial(other := str(uuid.uuid4())))
            declined = await validator.expect("V0DeclineJobRequest")
            assert declined["context"]["problem"]["code"] == "job_not_stored"
            server.start()
            await validator.expect("V0VolumesReadyRequest", "V0JobFinishedRequest")
            await until(lambda: horde.miner.pool.free(TEST) == 2)
            await validator.say(initial(other), request(other))
            await validator.expect("V0AcceptJobRequest")
            executor = await horde.executor((await horde.launched(2)).token)
            await executor.say(V0ExecutorReadyRequest(job_uuid=other))
            await executor.expect("V0InitialJobRequest", "V0JobRequest")

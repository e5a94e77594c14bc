"""Rows of the release before, under way, are resumed; and what ended long ago is forgotten."""

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate
from compute_horde.protocol.scheduling import attempt_uuid
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate
from compute_horde.validator.housekeeping import Forgetting
from compute_horde.validator.testing.scripted import MinerConnection, job_request, running
from compute_horde.validator.testing.world import JOB, MINER, OTHER, USER, WHOLE, World, finish, whole_job

INSERT = sa.text(
    "INSERT INTO jobs (uuid, request, state, miner_hotkey, miner_address, miner_port, received_at, started_at,"
    " deadline_at, cheated, cancel_requested) VALUES (:uuid, :request, :state, :hotkey, :address, :port, :at, :at,"
    " :until, false, :cancel)"
)
POST = sa.text("INSERT INTO outbox (job_uuid, frame) VALUES (:uuid, :frame)")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def old_row(world: World, state: str, *, uuid: str = JOB, miner: bool = True, cancel: bool = False) -> None:
    """As release 0002 wrote it, with the status that the facilitator has not acknowledged."""
    database = Database(world.url)
    await migrate(database, "validator", "0002")
    now = time.time()
    row = {
        "uuid": uuid,
        "request": job_request(uuid, USER, execution_time_limit=30).to_frame(),
        "state": state,
        "hotkey": MINER.ss58_address if miner else None,
        "address": "miner" if miner else None,
        "port": 8000 if miner else None,
        "at": now,
        "until": now + 30,
        "cancel": cancel,
    }
    frame = V0JobStatusUpdate.model_validate({"uuid": uuid, "status": state}).to_frame()
    async with database.begin() as connection:
        await connection.execute(INSERT, row)
        await connection.execute(POST, {"uuid": uuid, "frame": frame})
    await database.close()


@pytest.mark.parametrize("state", ["accepted", "executor_ready", "volumes_ready"])
async def test_a_job_at_a_miner_goes_on(world: World, state: str) -> None:
    await old_row(world, state)

    async def replay(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.send(vm.V0AcceptJobRequest(job_uuid=JOB), vm.V0ExecutorReadyRequest(job_uuid=JOB))
        if state != "volumes_ready":
            await miner.expect(vm.V0JobRequest)
        await finish(miner, JOB)

    miner = world.miner(replay)
    async with running(world.validator()):
        await world.facilitator.wait_for(JOB, "completed")
        await world.facilitator.until(miner.idle.is_set)
    assert world.facilitator.history(JOB) == WHOLE[WHOLE.index(state) :]


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_job_without_a_miner_finds_one(world: World, cancel: bool) -> None:
    await old_row(world, "received", miner=False, cancel=cancel)
    world.miner(whole_job)
    async with running(world.validator()):
        await world.facilitator.wait_for(JOB, "failed" if cancel else "completed")
    assert world.facilitator.history(JOB) == (["received", "failed"] if cancel else WHOLE)


async def test_what_ended_long_ago_is_forgotten_and_nothing_else(world: World) -> None:
    async def breaks(miner: MinerConnection) -> None:
        await whole_job(miner)

    world.miner(breaks)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        for uuid in (JOB, OTHER):
            await world.facilitator.push(job_request(uuid, USER))
            await world.facilitator.wait_for(uuid, "completed")
        waiting = "33333333-3333-4333-8333-333333333333"
        await world.facilitator.push(V0CancelJobRequest(job_uuid=waiting))
    second = attempt_uuid(JOB, 2)
    database = Database(world.url)
    long_ago = time.time() - 8 * 86400
    try:
        async with database.begin() as connection:
            for statement in (
                f"UPDATE jobs SET ended_at = {long_ago}, attempt = 2 WHERE uuid = '{JOB}'",
                f"INSERT INTO attempts VALUES ('{JOB}', 1, 'm', 1.0, 2.0, 'c', 'miner', 'x')",
                f"INSERT INTO trials VALUES ('{JOB}', 'm', 'busy', 'x', 1, 1.0)",
                f"INSERT INTO receipts VALUES ('{second}', 'JobStartedReceipt', '{{}}', 's')",
                f"INSERT INTO incidents (miner_hotkey, job_uuid, code, at) VALUES ('m', '{JOB}', 'c', {long_ago})",
            ):
                await connection.execute(sa.text(statement))
        done = await Forgetting(database, 7).housekeeper().once()
        assert (done["jobs"], done["incidents"]) == (1, 1)
        async with database.read() as connection:
            left = {
                table: (await connection.execute(sa.text(f"SELECT count(*) FROM {table}"))).scalar_one()
                for table in ("jobs", "attempts", "trials", "receipts", "incidents")
            }
        assert left == {"jobs": 1, "attempts": 0, "trials": 0, "receipts": 3, "incidents": 0}
    finally:
        await database.close()

"""Several validators on one database: SQLite's locks and PostgreSQL's leases."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from compute_horde.lifecycle.states import JobState
from compute_horde.validator.testing.crashing import crash
from compute_horde.validator.testing.crowded import CrowdedMiner
from compute_horde.validator.testing.scripted import job_request, running
from compute_horde.validator.testing.world import JOB, OTHER, USER, World

LONG = {"execution_time_limit": 30, "download_time_limit": 30, "upload_time_limit": 30}


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> World:
    made = World(tmp_path)
    made.url = database_url
    return made


async def test_the_heir_of_a_dead_validator_goes_on_with_waiting_and_running_jobs(world: World) -> None:
    miner = CrowdedMiner(1, total=1)
    world.miner(miner.script)
    dead, heir = world.validator(), world.validator()
    await dead.start()
    await dead.connected.wait()
    await world.facilitator.push(job_request(JOB, USER, **LONG))
    await world.facilitator.wait_for(JOB, "executor_ready")
    await world.facilitator.push(job_request(OTHER, USER, **LONG))
    await world.facilitator.wait_for(OTHER, "queued")
    async with running(heir):
        assert list(heir._live.under_way()) == []
        await crash(dead)
        async with asyncio.timeout(10):
            while len(heir._live.under_way()) < 2:  # noqa: ASYNC110 - nothing else tells of it
                await asyncio.sleep(0.02)
        miner.finish(JOB, OTHER)
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed", 15)
    assert miner.began == [JOB, OTHER]


async def test_a_whole_job_on_either_database(world: World) -> None:
    miner = CrowdedMiner(0, total=1)
    world.miner(miner.script)
    miner.finish(JOB)
    validator = world.validator(lease_seconds=0.5)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "queued")
        await asyncio.sleep(1)  # the lease was renewed meanwhile
        assert list(validator._live.under_way()) == [JOB]
        await miner.set_free(1)
        await world.facilitator.wait_for(JOB, "completed")
        job = await validator._store.job(JOB)
    assert job is not None
    assert (job.state, job.queued_at) == (JobState.COMPLETED, None)
    assert dataclasses.replace(job, state=JobState.QUEUED).attempt == 1

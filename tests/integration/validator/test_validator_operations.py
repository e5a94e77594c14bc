"""A validator's health and metrics on a port of their own."""

import socket
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from compute_horde.validator.testing.scripted import job_request, running
from compute_horde.validator.testing.world import JOB, USER, World, whole_job


async def test_operators_see_a_running_validator(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.miner(whole_job)
    validator = world.validator(operations_port=0, operations_token=SecretStr("t0ken"))
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "completed")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{validator.operations.port}") as client:
            live, ready = await client.get("/health/live"), await client.get("/health/ready")
            stranger = await client.get("/metrics")
            shown = await client.get("/metrics", headers={"Authorization": "Bearer t0ken"})
            await world.facilitator.unplug()
            while (unready := await client.get("/health/ready")).status_code == 200:  # until it has noticed
                pass
    assert (live.status_code, ready.status_code, unready.status_code) == (200, 200, 503)
    assert stranger.status_code == 401
    assert "compute_horde_validator_facilitator_connected 1.0" in shown.text
    assert 'compute_horde_validator_jobs_ended_total{fault="none",state="completed"} 1.0' in shown.text
    assert validator.operations.port is None


async def test_a_validator_whose_port_is_taken_does_not_start_and_leaves_nothing_behind(tmp_path: Path) -> None:
    world = World(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        validator = world.validator(operations_port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await validator.start()
    async with running(world.validator(operations_port=0)):
        pass

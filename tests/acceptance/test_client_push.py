"""Waiting by push: one stream for all, and a facilitator that dies meanwhile."""

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from compute_horde_sdk.v1 import ComputeHordeClient, ComputeHordeConnectionError, ComputeHordeJob

from . import test_separate_processes
from .conftest import HORDE, RunningHorde, client_of, facilitator_of, reached, running
from .proxy import proxy_of

TICKING = "i=0; while [ $i -lt 80 ]; do echo $i; i=$((i+1)); sleep 0.1; done"
TICKED = "".join(f"{number}\n" for number in range(80))

separate = test_separate_processes.services


def statuses(job: ComputeHordeJob) -> list[str]:
    return [entry.status.value for entry in job.status_history]


async def test_many_waits_share_one_stream_and_ask_for_nothing(horde: RunningHorde, image: str) -> None:
    async with proxy_of(facilitator_of(horde)) as proxy, client_of(horde, proxy.url) as client:
        jobs = [await client.create_job("always_on.test", "SN0", image, ["sleep", "1"]) for _ in range(3)]
        waits = [job.wait(60) for job in jobs for _ in range(2)]
        await asyncio.gather(*waits)
        assert [job.status.value for job in jobs] == ["completed"] * 3
        assert proxy.lines("GET /api/v1/events/") == ["GET /api/v1/events/"]
        assert len(proxy.lines("GET /api/v1/jobs/")) <= len(jobs)  # one look each as the stream opens, not polling
        looks = len(proxy.passed)
        await jobs[0].wait(60)
        assert len(proxy.passed) == looks  # a job that has ended costs nothing


async def test_a_wait_that_is_cancelled_leaves_nothing_behind(horde: RunningHorde, image: str) -> None:
    async with client_of(horde) as client:
        job = await client.create_job("always_on.test", "SN0", image, ["sleep", "2"])
        before = asyncio.all_tasks()
        waiting = asyncio.create_task(job.wait())
        await asyncio.sleep(0.5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for _ in range(100):
            if asyncio.all_tasks() <= before:
                break
            await asyncio.sleep(0.02)
        assert asyncio.all_tasks() <= before
        await job.wait(60)
        assert job.status.value == "completed"


async def test_a_horde_killed_and_started_again_ends_the_wait_rightly(tmp_path: Path, image: str) -> None:
    home, port = tmp_path / "home", str(test_separate_processes.free_port())
    with running(home, "--port", port) as horde:
        async with client_of(horde) as client:
            job = await client.create_job("always_on.test", "SN0", image, ["sh", "-c", TICKING])
            waiting = asyncio.create_task(job.wait(60))
            await reached(await client.get_job(job.uuid), "volumes_ready")
            await asyncio.to_thread(horde.stop, signal.SIGKILL)
            with_horde_again = running(home, "--port", port)
            await asyncio.to_thread(with_horde_again.__enter__)
            try:
                await waiting
                assert (job.status.value, job.attempt) == ("completed", 1)
                assert job.result is not None
                assert job.result.stdout == TICKED, "its container outlived the killed process"
                assert statuses(job) == list(dict.fromkeys(statuses(job)))
                assert statuses(job) == statuses(await client.get_job(job.uuid))
                after = await client.create_job("always_on.test", "SN0", image, ["echo", "again"])
                await after.wait(60)
                assert after.status.value == "completed"
            finally:
                with_horde_again.__exit__(None, None, None)


async def test_a_facilitator_killed_during_a_job_costs_the_wait_nothing(
    separate: dict[str, Any], image: str
) -> None:
    keys, folder = separate["keys"], separate["folder"]
    validator = keys["validator"].ss58_address
    async with ComputeHordeClient(keys["user"], validator, facilitator_url=separate["url"]) as client:
        job = await _once_up(client, image, "echo begun; sleep 3; echo ended")
        heard: list[str] = []
        waiting = asyncio.create_task(job.wait(90, lambda _, entry: heard.append(entry.status.value)))
        await reached(await client.get_job(job.uuid), "volumes_ready")
        facilitator = separate["processes"]["facilitator"]
        facilitator.kill()
        facilitator.wait(10)
        command = [*HORDE, "facilitator", "--config", str(folder / "facilitator.toml")]
        with (folder / "facilitator-again.log").open("w") as log, subprocess.Popen(command, stderr=log) as again:  # noqa: ASYNC220 - starting it takes no time
            try:
                await waiting
                assert (job.status.value, job.result and job.result.stdout) == ("completed", "begun\nended\n")
                assert heard == statuses(job) == list(dict.fromkeys(heard))
                found = await client.get_job(job.uuid)
                assert (statuses(found), found.result) == (statuses(job), job.result)
            finally:
                again.terminate()


async def _once_up(client: ComputeHordeClient, image: str, script: str) -> ComputeHordeJob:
    for _ in range(300):
        try:
            return await client.create_job("always_on.test", "SN0", image, ["sh", "-c", script])
        except ComputeHordeConnectionError:
            raise
        except Exception:
            await asyncio.sleep(0.1)
    raise AssertionError("the services did not come up within 30 s")

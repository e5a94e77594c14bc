"""Several facilitators on one database behind a plain TCP proxy, one of them killed at random during 200 jobs."""

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres import Postgres

from compute_horde_sdk.v1 import ComputeHordeClient, ComputeHordeError, ComputeHordeJob

from . import checks
from .engine import WrittenStarts
from .scenes import COMPUTE, SECONDS, is_up
from .services import Services, free_port
from .wires import Loop, Wire

JOBS, AT_ONCE = 200, 10


class Replicas:
    """``count`` facilitators; the client and the validator reach any of them through one address each."""

    def __init__(self, services: Services, loop: Loop, count: int) -> None:
        self.services = services
        self.names = [f"facilitator-{number}" for number in range(count)]
        self.ports = {name: free_port() for name in self.names}
        self.alive = set(self.names)
        self._dice = random.Random(count)
        self.front = Wire(loop, self._any)
        services.to_facilitator._target = self._any
        for name in self.names:
            text = f'port = {self.ports[name]}\nreplica_url = "http://127.0.0.1:{self.ports[name]}"\n'
            services.configure(name, text, services._database_url("facilitator"))
            services.start(name, command="facilitator")

    def close(self) -> None:
        self.front.close()

    def _any(self) -> int:
        return self.ports[self._dice.choice(sorted(self.alive))]

    def kill_one(self) -> str:
        victim = self._dice.choice(sorted(self.alive))
        self.alive.discard(victim)
        self.services.kill(victim)
        return victim

    def bring_back(self, name: str) -> None:
        self.services.start(name, command="facilitator")
        self.alive.add(name)


@pytest.fixture
def services(tmp_path: Path, loop_thread: Loop, postgres: Postgres) -> Iterator[Services]:
    databases: dict[str, str] = {}
    made = Services(tmp_path, loop_thread, lambda name: postgres.url(databases.setdefault(name, postgres.fresh())))
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [2, 3])
async def test_a_replica_is_killed_at_random_during_200_jobs(
    count: int, services: Services, loop_thread: Loop, image: str
) -> None:
    """The engine is a fake: it would take all of a small machine, and has no part in this."""
    starts = services.folder / "starts"
    services.start_light_miner(str(starts), image)
    services.start("validator")
    user, validator = services.keys["user"], services.keys["validator"].ss58_address
    with contextlib.closing(Replicas(services, loop_thread, count)) as replicas:
        url = f"http://127.0.0.1:{replicas.front.port}"
        async with ComputeHordeClient(user, validator, facilitator_url=url) as client:
            await (await is_up(client, image)).wait(60)
            killing = asyncio.create_task(_kill_and_restart(replicas))
            jobs = await _many_jobs(client, image)
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
            listed = [job.uuid async for job in client.iter_jobs()]
    assert {job.status.value for job in jobs} == {"completed"}
    for number, job in enumerate(jobs):
        assert job.result is not None
        assert job.result.stdout == f"{number}\n"
        checks.history_is_right(job)
    checks.ran_once(WrittenStarts(starts), jobs)
    await checks.stored_once(services._database_url("facilitator"), jobs)
    assert sorted(listed) == sorted({*listed})
    assert {job.uuid for job in jobs} <= {*listed}


async def _many_jobs(client: ComputeHordeClient, image: str) -> list[ComputeHordeJob]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> ComputeHordeJob:
        async with places:
            job = await _created(client, image, number)
            await job.wait(120)
            return job

    return list(await asyncio.gather(*(one(number) for number in range(JOBS))))


async def _created(client: ComputeHordeClient, image: str, number: int) -> ComputeHordeJob:
    """A job that was refused was not created: the user would send it again."""
    for _ in range(100):
        try:
            return await client.create_job(COMPUTE, "SN0", image, ["echo", str(number)], **SECONDS)
        except ComputeHordeError:
            await asyncio.sleep(0.2)
    raise AssertionError("no job can be created")


async def _kill_and_restart(replicas: Replicas) -> None:
    while True:
        await asyncio.sleep(3)
        victim = replicas.kill_one()
        await asyncio.sleep(2)
        replicas.bring_back(victim)
        await asyncio.sleep(5)

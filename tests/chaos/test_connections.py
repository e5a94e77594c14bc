"""Every connection is cut, hung (half-open) or slow while jobs run: the jobs end right, each once."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from . import checks
from .engine import Watch
from .scenes import Scene, reached
from .wires import Wire

JOBS = 6
TICKING = "i=0; while [ $i -lt 40 ]; do echo $i; i=$((i+1)); sleep 0.1; done"
PRINTED = "".join(f"{n}\n" for n in range(40))


def wires(scene: Scene) -> dict[str, Wire]:
    services = scene.services
    return {
        "validator to facilitator": services.to_facilitator,
        "validator to miner": services.to_miner,
        "executor to miner": services.from_executors,
    }


async def run_jobs(
    scene: Scene, watch: Watch, disturbance: Callable[[], Coroutine[Any, Any, None]], within_s: float
) -> None:
    jobs = [await scene.create(args=["sh", "-c", TICKING]) for _ in range(JOBS)]
    waiting = [asyncio.create_task(job.wait(within_s)) for job in jobs]
    await asyncio.gather(disturbance(), *waiting)
    for job in jobs:
        assert (job.status.value, job.error) == ("completed", None)
        assert job.result is not None
        assert job.result.stdout == PRINTED
        await reached(job, "completed")
        checks.history_is_right(job)
    checks.ran_once(watch, jobs)
    await checks.stored_once(scene.services._database_url("facilitator"), jobs)
    checks.nothing_is_left(scene.services)


async def test_connections_that_are_cut_all_the_time(scene: Scene, watch: Watch) -> None:
    dice = random.Random(1)

    async def cut() -> None:
        for _ in range(20):
            dice.choice(list(wires(scene).values())).cut()
            await asyncio.sleep(0.3)

    await run_jobs(scene, watch, cut, 60)


@pytest.mark.parametrize("services", ["sqlite"], indirect=True)
async def test_connections_that_die_without_a_word(scene: Scene, watch: Watch) -> None:
    async def hang() -> None:
        await asyncio.sleep(2)
        for wire in wires(scene).values():
            wire.hang()

    await run_jobs(scene, watch, hang, 90)


@pytest.mark.parametrize("services", ["sqlite"], indirect=True)
async def test_connections_that_are_slow(scene: Scene, watch: Watch) -> None:
    async def slow() -> None:
        for wire in wires(scene).values():
            wire.slow(20_000)
        await asyncio.sleep(8)
        for wire in wires(scene).values():
            wire.slow(0)

    await run_jobs(scene, watch, slow, 90)


@pytest.mark.parametrize("services", ["sqlite"], indirect=True)
@pytest.mark.parametrize("end", ["facilitator", "miner"])
async def test_a_service_that_cannot_be_reached_for_a_while(scene: Scene, watch: Watch, end: str) -> None:
    async def unplug() -> None:
        wire = scene.services.to_facilitator if end == "facilitator" else scene.services.to_miner
        await asyncio.sleep(1)
        wire.hold()
        await asyncio.sleep(8)
        wire.release()

    await run_jobs(scene, watch, unplug, 90)

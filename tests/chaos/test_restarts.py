"""Each service is killed while one job is in each stage, and started again: no job is lost, none runs twice."""

import asyncio
from collections.abc import Callable

import pytest

from . import checks
from .engine import Watch
from .scenes import Scene, reached

SERVICES = ("facilitator", "validator", "miner", "executor")


def kill_and_restart(scene: Scene, service: str) -> None:
    services = scene.services
    if service == "executor":
        assert services.kill_executors() >= 6
    else:
        services.kill(service)
        services.start(service)


@pytest.mark.parametrize("service", SERVICES)
async def test_no_job_is_lost_whoever_is_killed_at_whatever_stage(
    service: str, scene: Scene, watch: Watch, pulled: Callable[[], str]
) -> None:
    await scene.set_up()
    following = asyncio.create_task(scene.follow())
    cancelling = asyncio.create_task(scene.held["cancelling"].job.cancel())
    await asyncio.sleep(0.3)
    kill_and_restart(scene, service)
    scene.let_go()
    pulled.release()  # type: ignore[attr-defined] # see the fixture
    await cancelling
    await asyncio.sleep(1)
    scene.go("running")
    scene.go("occupying")
    await everything_ends(scene, watch)
    await asyncio.wait_for(following, 30)
    result = scene.held["running"].job.result
    assert result is not None
    assert scene.lines == result.stdout.splitlines()


async def everything_ends(scene: Scene, watch: Watch) -> None:
    held = scene.held.values()
    jobs = [each.job for each in held]
    try:
        await asyncio.gather(*(job.wait(90) for job in jobs))
    finally:
        told = {each.stage: f"{each.job.status.value} {each.job.error or ''}" for each in held}
    assert {each.stage: each.job.status.value for each in held} == {each.stage: each.ends for each in held}, told
    for each in held:
        await reached(each.job, each.ends)
        checks.history_is_right(each.job)
        assert getattr(each.job, "attempt", 1) == 1, told
    services = scene.services
    checks.ran_once(watch, jobs)
    await checks.stored_once(services._database_url("facilitator"), jobs)
    await checks.agreed(services._database_url("validator"), "jobs", "uuid", jobs)
    await checks.agreed(services._database_url("miner"), "jobs", "job_uuid", jobs)
    checks.nothing_is_left(services)
    the_outputs_are_whole(scene)


def the_outputs_are_whole(scene: Scene) -> None:
    def printed(stage: str) -> str:
        result = scene.held[stage].job.result
        assert result is not None
        return result.stdout

    ticks = printed("running").splitlines()
    assert ticks == [*(f"tick {n}" for n in range(len(ticks) - 1)), f"done {len(ticks) - 1}"]
    assert printed("downloading") == "from the server\n"
    assert printed("queued") == "my turn\n"
    assert printed("received") == printed("sent") == "hello\n"
    assert set(scene.server.stored["/held/upload"]) == {b"out\n"}

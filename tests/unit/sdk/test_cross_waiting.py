"""Waiting for a verdict: shared, limited in time, cancelled."""

import asyncio

import pytest
from tests.unit.sdk.cross import REPORT, SPEC, chosen, finish, pair, state, until

from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation
from compute_horde_sdk._internal.crossvalidation.verdict import CrossValidationState
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeError,
    ComputeHordeJobTimeoutError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.sharing import Shared
from compute_horde_sdk._internal.wire.fake import FakeFacilitator


async def test_callers_at_the_same_time_share_one_comparison_and_one_report() -> None:
    def comparator(own: object, trusted: object) -> bool:
        calls.append(own)
        return False

    calls: list[object] = []
    fake = FakeFacilitator()
    plan = CrossValidation(comparator=comparator)
    async with fake.client(**chosen(plan)) as client:
        job, trusted = await pair(client, SPEC)
        waiting = [asyncio.create_task(job.wait_for_cross_validation()) for _ in range(20)]
        await asyncio.sleep(0.01)
        waiting.pop().cancel()
        finish(fake, job.uuid)
        finish(fake, trusted)
        reports = await asyncio.gather(*waiting)
    assert all(report is reports[0] for report in reports)
    assert (len(calls), len(fake.sent("POST", REPORT))) == (1, 1)


async def test_time_runs_out_and_both_jobs_go_on() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, trusted = await pair(client)
        finish(fake, job.uuid)
        with pytest.raises(ComputeHordeJobTimeoutError, match="no verdict"):
            await job.wait_for_cross_validation(0.05)
        with pytest.raises(ComputeHordeValidationError):
            await job.wait_for_cross_validation(-1)
        assert state(job) == "pending"
        finish(fake, trusted)
        assert (await job.wait_for_cross_validation(5)).state is CrossValidationState.MATCH


async def test_cancelling_leaves_nothing_behind() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job, _ = await pair(client)
        before = asyncio.all_tasks()
        waiting = asyncio.create_task(job.wait_for_cross_validation())
        await until(lambda: fake.open_streams)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for _ in range(100):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before | {asyncio.current_task()}


async def test_shared_work_ends_for_all_and_starts_anew() -> None:
    async def once() -> int:
        started.append(1)
        await gate.wait()
        if len(started) == 2:
            raise ComputeHordeError("no")
        return len(started)

    started: list[int] = []
    gate = asyncio.Event()
    shared = Shared(once)
    first = [asyncio.create_task(shared()) for _ in range(3)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*first) == [1, 1, 1]
    second = await asyncio.gather(*(shared() for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in second] == [ComputeHordeError] * 2
    assert await shared() == 3


def test_shared_work_of_a_loop_that_is_no_more_is_started_anew() -> None:
    async def work() -> int:
        if asyncio.get_running_loop() is loop:
            await asyncio.Event().wait()
        return 1

    async def leave() -> None:
        await asyncio.wait({asyncio.create_task(shared())}, timeout=0)

    shared = Shared(work)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    assert asyncio.run(shared()) == 1
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.wait(left))
    loop.close()

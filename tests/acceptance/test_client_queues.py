"""``job_queue``: jobs found again by another process, in a list that holds still while jobs are created."""

import asyncio
import uuid
from typing import Any

from compute_horde_sdk.v1 import ComputeHordeClient, ComputeHordeJob

from .conftest import RunningHorde, client_of, in_another_process

PAGE = 100
"""How many jobs one request for the list brings."""

LISTS = """
async def work(client):
    wanted = {"pending": True, "ended": False, "all": None}
    return {name: [job.uuid async for job in client.iter_jobs(pending=which)] for name, which in wanted.items()}
"""


def fresh_queue() -> str:
    return f"queue-{uuid.uuid4()}"


async def made(client: ComputeHordeClient, image: str, *args: str, **wishes: Any) -> ComputeHordeJob:
    return await client.create_job("always_on.test", "SN0", image, list(args), **wishes)


async def hurried(client: ComputeHordeClient, image: str) -> ComputeHordeJob:
    """A job that does not wait for an executor."""
    return await made(client, image, "true", queue_time_limit_sec=0)


async def test_another_process_finds_the_pending_jobs_of_its_queue(horde: RunningHorde, image: str) -> None:
    queue = fresh_queue()
    async with client_of(horde, job_queue=queue) as client, client_of(horde, job_queue=fresh_queue()) as other:
        ended = await made(client, image, "true")
        await ended.wait(60)
        pending = [await made(client, image, "sleep", "20") for _ in range(2)]
        elsewhere = await made(other, image, "true")
        newest_first = [job.uuid for job in reversed(pending)]
        assert await in_another_process(horde, LISTS, queue) == {
            "pending": newest_first,
            "ended": [ended.uuid],
            "all": [*newest_first, ended.uuid],
        }
        found = await in_another_process(horde, LISTS)
        assert {ended.uuid, elsewhere.uuid, *newest_first} <= set(found["all"])
        assert set(newest_first) <= set(found["pending"])
        assert (ended.job_queue, (await client.get_job(ended.uuid)).job_queue) == (queue, queue)
        for job in pending:
            await job.cancel()
        await asyncio.gather(elsewhere.wait(60), *(job.wait(60) for job in pending))


async def test_the_list_holds_still_while_jobs_are_created_and_end(horde: RunningHorde, image: str) -> None:
    """More than a page of jobs, most of them turned away since every executor is busy: that is quick."""
    queue = fresh_queue()
    async with client_of(horde, job_queue=queue) as client:
        jobs = await asyncio.gather(*(hurried(client, image) for _ in range(PAGE + 20)))
        listed: list[str] = []
        later: list[ComputeHordeJob] = []
        async for job in client.iter_jobs():
            listed.append(job.uuid)
            if len(listed) in (1, PAGE):
                later += await asyncio.gather(*(hurried(client, image) for _ in range(5)))
        assert len(listed) == len(set(listed))
        assert set(listed) == {job.uuid for job in jobs}
        again = [job async for job in client.iter_jobs()]
        assert {job.uuid for job in again} == {job.uuid for job in (*jobs, *later)}
        moments = [job.created_at for job in again]
        assert moments == sorted(moments, reverse=True)
        await asyncio.gather(*(job.wait(60) for job in (*jobs, *later)))
        assert [job async for job in client.iter_jobs(pending=True)] == []

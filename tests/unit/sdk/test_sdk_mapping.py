"""``map_jobs``: many specs, few at a time."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJobSpec,
    ComputeHordeJobTimeoutError,
    ComputeHordeValidationError,
    MappedJob,
)

DONE: dict[str, Any] = {"miner_response": {"docker_process_stdout": "out", "docker_process_stderr": ""}}


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def client(fake: FakeFacilitator) -> AsyncIterator[ComputeHordeClient]:
    async with fake.client() as made:
        yield made
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def spec(number: int) -> ComputeHordeJobSpec:
    return ComputeHordeJobSpec("always_on.test", "SN0", "alpine", args=[str(number)])


def under_way(fake: FakeFacilitator) -> list[str]:
    return [uuid for uuid, job in fake.jobs.items() if job.status == "sent"]


async def settle() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


async def finish_one_by_one(fake: FakeFacilitator, total: int, most: int) -> None:
    """End the job of the latest spec under way, again and again; see that there are never more than ``most``."""
    for ended in range(total):
        async with asyncio.timeout(5):
            while len(under_way(fake)) < min(most, total - ended):  # noqa: ASYNC110 - looks at the fake's fields
                await asyncio.sleep(0)
        await settle()
        assert len(under_way(fake)) <= most
        fake.advance(max(under_way(fake), key=lambda uuid: fake.jobs[uuid].args), "completed", DONE)


async def test_results_come_as_jobs_end_and_specs_are_taken_when_there_is_room(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    taken: list[int] = []

    def specs() -> Iterator[ComputeHordeJobSpec]:
        for number in range(5):
            taken.append(number)
            assert len(under_way(fake)) < 2
            yield spec(number)

    finishing = asyncio.create_task(finish_one_by_one(fake, 5, 2))
    found = [one async for one in client.map_jobs(specs(), concurrency=2)]
    await finishing
    assert sorted(one.index for one in found) == [0, 1, 2, 3, 4] == taken
    assert [one.index for one in found][:2] == [1, 2]
    assert all(list(one.spec.args) == [str(one.index)] for one in found)
    assert {one.result.stdout for one in found if one.result} == {"out"}
    assert not any(one.error for one in found)


async def test_an_asynchronous_source_may_be_slow(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    go_on = asyncio.Event()

    async def specs() -> AsyncIterator[ComputeHordeJobSpec]:
        yield spec(0)
        await go_on.wait()
        yield spec(1)

    found = client.map_jobs(specs())
    finishing = asyncio.create_task(finish_one_by_one(fake, 2, 1))
    assert (await anext(found)).index == 0
    go_on.set()
    assert (await anext(found)).index == 1
    assert await anext(found, None) is None
    await finishing


async def test_one_that_fails_does_not_disturb_the_others(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    fake.fail("/api/v1/job-docker/", httpx.Response(400, json={"docker_image": ["no such image"]}))
    wrong: Any = "no spec"
    finishing = asyncio.create_task(finish_one_by_one(fake, 1, 1))
    found = {one.index: one async for one in client.map_jobs([spec(0), wrong, spec(2)], concurrency=1)}
    await finishing
    assert isinstance(found[0].error, ComputeHordeValidationError)
    assert found[0].error.field == "docker_image"
    assert (found[0].job, found[0].result) == (None, None)
    assert isinstance(found[1].error, ComputeHordeValidationError)
    assert found[2].error is None


async def test_a_job_that_fails_carries_its_error(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    found = client.map_jobs([spec(0)])

    async def fail() -> None:
        await settle()
        fake.advance(under_way(fake)[0], "rejected", {})

    failing = asyncio.create_task(fail())
    one = await anext(found)
    await failing
    assert one.job is not None
    assert one.error is one.job.error is not None


async def test_one_that_takes_too_long_keeps_its_job(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    (one,) = [one async for one in client.map_jobs([spec(0)], timeout=0.3)]
    assert isinstance(one.error, ComputeHordeJobTimeoutError)
    assert one.job is not None
    assert one.job.uuid in fake.jobs


async def test_leaving_the_loop_leaves_no_task_and_the_jobs_alone(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    finishing = asyncio.create_task(finish_one_by_one(fake, 1, 3))
    async for one in client.map_jobs((spec(number) for number in range(100)), concurrency=3):
        assert isinstance(one, MappedJob)
        break
    await finishing
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert under_way(fake)
    assert not any("cancel" in request.url.path for request in fake.requests)


async def test_a_source_that_breaks_loses_nothing_of_before(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    def specs() -> Iterator[ComputeHordeJobSpec]:
        yield spec(0)
        raise RuntimeError("no more paper")

    finishing = asyncio.create_task(finish_one_by_one(fake, 1, 1))
    found = client.map_jobs(specs())
    assert (await anext(found)).error is None
    with pytest.raises(RuntimeError, match="no more paper"):
        await anext(found)
    await finishing


async def test_nothing_to_do(client: ComputeHordeClient) -> None:
    assert [one async for one in client.map_jobs([])] == []


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        *[("concurrency", {"concurrency": value}) for value in (0, True, 1.5)],
        ("specs", {"specs": 3}),
        ("timeout", {"timeout": "1"}),
        ("max_attempts", {"max_attempts": None}),
    ],
)
async def test_wrong_arguments(client: ComputeHordeClient, field: str, changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {"specs": [], **changes}
    with pytest.raises(ComputeHordeValidationError) as caught:
        client.map_jobs(given.pop("specs"), **given)
    assert caught.value.field == field

"""The list of jobs, newest first, while jobs come and go; and looks at many jobs at a time."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.unit.sdk.test_sdk_wire_creating import ORDER

from compute_horde_sdk._internal.exceptions import (
    ComputeHordeError,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.port import JobQuery, Order
from compute_horde_sdk._internal.wire import listing, looking
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wire.session import Session

JOBS = "/api/v1/jobs/"


@pytest.fixture(params=["ours", "older"])
def fake(request: pytest.FixtureRequest) -> FakeFacilitator:
    return FakeFacilitator() if request.param == "ours" else FakeFacilitator(extensions=frozenset())


@pytest.fixture
async def horde(fake: FakeFacilitator) -> AsyncIterator[Session]:
    made = fake.horde()
    yield made
    await made.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZES", (4, 2, 1))


async def made_by(horde: Session, count: int, queue: str = "") -> list[str]:
    order = Order(ORDER.spec, "validator", queue)
    return [(await horde.create(order)).uuid for _ in range(count)]


@pytest.mark.parametrize("count", [0, 1, 4, 5, 13])
@pytest.mark.usefixtures("small_pages")
async def test_every_job_once_newest_first(count: int, horde: Session) -> None:
    made = await made_by(horde, count)
    assert [one.uuid async for one in horde.iterate(None, None)] == made[::-1]


@pytest.mark.usefixtures("small_pages")
async def test_of_a_queue_and_pending(fake: FakeFacilitator, horde: Session) -> None:
    await made_by(horde, 3, "another")
    made = await made_by(horde, 9, "mine")
    for ended in made[::2]:
        fake.advance(ended, "completed")
    assert [one.uuid async for one in horde.iterate("mine", True)] == made[1::2][::-1]
    assert [one.uuid async for one in horde.iterate("mine", False)] == made[::2][::-1]
    assert len([one async for one in horde.iterate(None, None)]) == 12


@pytest.mark.usefixtures("small_pages")
async def test_jobs_that_come_and_end_meanwhile_change_nothing(fake: FakeFacilitator, horde: Session) -> None:
    made = await made_by(horde, 13)
    seen = []
    async for one in horde.iterate(None, True):
        seen.append(one.uuid)
        fake.advance(one.uuid, "completed")
        await made_by(horde, 1)
    assert seen == made[::-1]


@pytest.mark.usefixtures("small_pages")
async def test_jobs_deleted_meanwhile(fake: FakeFacilitator, horde: Session) -> None:
    made = await made_by(horde, 9)
    seen = []
    async for one in horde.iterate(None, None):
        seen.append(one.uuid)
        if len(seen) == 4:
            for gone in made[5:7]:
                del fake.jobs[gone]
    assert [one for one in seen if one in fake.jobs] == list(fake.jobs)[::-1]
    assert len(seen) == len(set(seen))


@pytest.mark.usefixtures("small_pages")
async def test_a_whole_page_deleted_meanwhile_is_told() -> None:
    fake = FakeFacilitator()
    horde = fake.horde()
    await made_by(horde, 9)
    seen = 0

    async def read() -> None:
        nonlocal seen
        async for _ in horde.iterate(None, None):
            seen += 1
            if seen == 4:
                fake.jobs.clear()

    with pytest.raises(ComputeHordeValidationError):
        await read()
    assert seen == 4
    await horde.aclose()


@pytest.mark.usefixtures("small_pages")
async def test_pages_that_are_too_large_become_smaller(fake: FakeFacilitator) -> None:
    horde = fake.horde(max_answer_bytes=3000)
    made = await made_by(horde, 5)
    assert [one.uuid async for one in horde.iterate(None, None)] == made[::-1]
    assert {request.url.params["page_size"] for request in fake.sent("GET", JOBS)} >= {"4", "2"}
    tiny = fake.horde(max_answer_bytes=200)
    with pytest.raises(ComputeHordeResponseError) as caught:
        [one async for one in tiny.iterate(None, None)]
    assert caught.value.code == "response_too_large"
    await tiny.aclose()
    await horde.aclose()


async def test_a_refused_list(fake: FakeFacilitator, horde: Session) -> None:
    for response, error in (
        (httpx.Response(404), ComputeHordeNotFoundError),
        (httpx.Response(400, json={"tag": ["no"]}), ComputeHordeValidationError),
    ):
        fake.fail(JOBS, response)
        with pytest.raises(error):
            [one async for one in horde.iterate(None, None)]


@pytest.mark.usefixtures("small_pages")
async def test_the_last_page_may_go_away() -> None:
    fake = FakeFacilitator(extensions=frozenset())
    horde = fake.horde()
    made = await made_by(horde, 5)
    await horde.list_jobs(JobQuery())
    page = fake.jobs.copy()

    async def lose_one(request: httpx.Request) -> httpx.Response:
        response = await fake.handle(request)
        if request.url.path == JOBS:
            fake.jobs.pop(made[0], None)
        return response

    shrinking = fake.horde(transport=httpx.MockTransport(lose_one))
    assert {one.uuid async for one in shrinking.iterate(None, None)} == set(page) - {made[0]}
    await shrinking.aclose()
    await horde.aclose()


async def test_looks_travel_together(fake: FakeFacilitator, horde: Session) -> None:
    made = await made_by(horde, 400)
    found = await asyncio.gather(*(horde.look(one) for one in made), horde.look(made[0]))
    assert [one.uuid for one in found] == [*made, made[0]]
    assert len(fake.sent("GET", JOBS)) == 3
    assert (await horde.look(made[0])).uuid == made[0]
    assert len(fake.sent("GET", f"{JOBS}{made[0]}/")) == 1


async def test_a_job_that_is_missing_is_asked_for_alone(fake: FakeFacilitator, horde: Session) -> None:
    here, gone = await made_by(horde, 2)
    del fake.jobs[gone]
    found = await asyncio.gather(horde.look(here), horde.look(gone), return_exceptions=True)
    assert isinstance(found[1], ComputeHordeNotFoundError)
    assert not isinstance(found[0], BaseException)


@pytest.mark.parametrize(
    ("response", "together"),
    [(httpx.Response(414), False), (httpx.Response(200, text="{"), False), (httpx.Response(403), True)],
)
async def test_a_request_for_many_that_fails(
    response: httpx.Response, together: bool, fake: FakeFacilitator, horde: Session
) -> None:
    made = await made_by(horde, 3)
    fake.fail(JOBS, response)
    found = await asyncio.gather(*(horde.look(one) for one in made), return_exceptions=True)
    assert all(isinstance(one, ComputeHordeError) is together for one in found)
    assert sum(len(fake.sent("GET", f"{JOBS}{one}/")) for one in made) == (0 if together else 3)


async def test_looks_that_nobody_waits_for_are_not_made(fake: FakeFacilitator, horde: Session) -> None:
    made = await made_by(horde, 3)
    for turns in range(8):
        looks = [asyncio.create_task(horde.look(one)) for one in [*made, made[0]]]
        for _ in range(turns):
            await asyncio.sleep(0)
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
    staying, leaving = asyncio.create_task(horde.look(made[0])), asyncio.create_task(horde.look(made[1]))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).uuid == made[0]


async def test_looks_are_limited_in_rate_and_number(fake: FakeFacilitator) -> None:
    under_way, most, counted = 0, 0, 0

    async def count(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most, counted
        under_way, counted = under_way + 1, counted + 1
        most = max(most, under_way)
        await asyncio.sleep(0.002)
        under_way -= 1
        return await fake.handle(request)

    now = 0.0
    horde = fake.horde(transport=httpx.MockTransport(count), clock=lambda: now)
    made = await made_by(horde, 100)
    most = counted = 0
    looks = []
    for one in made:
        looks.append(asyncio.create_task(horde.look(one)))
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    assert most <= looking.MAX_UNDER_WAY
    assert counted <= looking.BURST
    now = 1000.0
    await asyncio.gather(*looks)
    await horde.aclose()


def test_looks_in_one_loop_after_another() -> None:
    fake = FakeFacilitator()
    horde = fake.horde()

    async def look_at_three() -> None:
        await asyncio.gather(*(horde.look(one) for one in list(fake.jobs)[:3]))

    asyncio.run(made_by(horde, 3))
    for _ in range(3):
        asyncio.run(look_at_three())

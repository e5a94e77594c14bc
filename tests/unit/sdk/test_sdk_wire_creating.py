"""Created once, reported once, logged in once: answers that are lost, and many callers at a time."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from email.utils import format_datetime

import httpx
import pytest

from compute_horde_sdk._internal.exceptions import (
    ComputeHordeAuthenticationError,
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeResponseError,
)
from compute_horde_sdk._internal.port import Order
from compute_horde_sdk._internal.sharing import Shared
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wire.session import Session

POST = "/api/v1/job-docker/"
REPORT = "/api/v1/cheated-job/"
ORDER = Order(ComputeHordeJobSpec("always_on.test", "SN0", "alpine"), "validator")


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def horde(fake: FakeFacilitator) -> AsyncIterator[Session]:
    made = fake.horde()
    yield made
    await made.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_lost_answer_is_asked_for_again_with_the_same_bytes(fake: FakeFacilitator, horde: Session) -> None:
    fake.lose(POST, httpx.ReadError("reset"), httpx.ReadTimeout("stalled"), httpx.RemoteProtocolError("gone"))
    fake.fail(POST, httpx.Response(504), httpx.Response(429, headers={"Retry-After": "2"}))
    made = await horde.create(ORDER)
    assert list(fake.jobs) == [made.uuid]
    sent = fake.sent("POST", POST)
    assert len(sent) == 6
    assert (
        len({(one.content, one.headers["X-CH-Signature"], one.headers["X-CH-Timestamp-NS"]) for one in sent}) == 1
    )
    assert 2.0 in fake.slept


async def test_an_answer_that_stays_lost_leaves_it_unknown(fake: FakeFacilitator, horde: Session) -> None:
    fake.lose(POST, *[httpx.ReadError("reset")] * 30)
    with pytest.raises(ComputeHordeConnectionError) as caught:
        await horde.create(ORDER)
    assert (caught.value.code, caught.value.retryable) == ("creation_unknown", False)
    assert len(fake.jobs) == 1
    fake.lost.clear()
    fake.lose(POST, httpx.ReadError("reset"))
    fake.fail(POST, *[httpx.Response(504)] * 20)
    with pytest.raises(ComputeHordeConnectionError, match="504") as caught:
        await horde.create(ORDER)
    assert caught.value.code == "creation_unknown"


async def test_a_restart_of_the_facilitator_is_waited_out(fake: FakeFacilitator, horde: Session) -> None:
    fake.fail("/auth/nonce", *[httpx.ConnectError("refused")] * 24)
    await horde.create(ORDER)
    assert 20 <= sum(fake.slept) <= 25


async def test_a_try_that_hangs_is_given_up(fake: FakeFacilitator) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        if request.url.path == POST:
            await asyncio.sleep(60)
        return await fake.handle(request)

    horde = fake.horde(request_s=0.01, retry_s=0.1, transport=httpx.MockTransport(hang))
    with pytest.raises(ComputeHordeConnectionError, match="did not answer in time") as caught:
        await horde.create(ORDER)
    assert caught.value.code == "creation_unknown"
    await horde.aclose()


async def test_a_report_that_exists_already_may_be_this_one(fake: FakeFacilitator, horde: Session) -> None:
    first, second = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    fake.lose(REPORT, httpx.ReadError("reset"))
    assert await horde.report_cheat(first, second, None) == "Job reported as cheated"
    assert len(fake.reports) == 1
    with pytest.raises(ComputeHordeResponseError, match="already exists"):
        await horde.report_cheat(first, second, None)
    fake.lose(REPORT, *[httpx.ReadError("reset")] * 30)
    with pytest.raises(ComputeHordeConnectionError, match="reset"):
        await horde.report_cheat(second, first, None)


async def test_a_cancellation_is_sent_until_it_is_answered(fake: FakeFacilitator, horde: Session) -> None:
    made = await horde.create(ORDER)
    fake.lose(f"/api/v1/jobs/{made.uuid}/cancel/", httpx.ReadError("reset"))
    assert (await horde.cancel(made.uuid)).cancel_requested
    fake.advance(made.uuid, "cancelled")
    assert (await horde.cancel(made.uuid)).status == "cancelled"


async def test_a_thousand_refused_tokens_are_one_login(fake: FakeFacilitator, horde: Session) -> None:
    made = await horde.create(ORDER)
    fake.expired.add("token-1")
    await asyncio.gather(*(horde.fetch(made.uuid) for _ in range(1000)))
    assert fake.logins == 2


async def test_a_failed_login_fails_everyone_who_waits_for_it_once(fake: FakeFacilitator, horde: Session) -> None:
    fake.fail("/auth/login", httpx.Response(401, json={"error": "Invalid signature"}))
    outcomes = await asyncio.gather(*(horde.create(ORDER) for _ in range(50)), return_exceptions=True)
    assert {type(one) for one in outcomes} == {ComputeHordeAuthenticationError}
    assert len(fake.sent("POST", "/auth/login")) == 1
    await horde.create(ORDER)


async def test_a_proxys_page_says_nothing_of_the_facilitator_behind(fake: FakeFacilitator, horde: Session) -> None:
    offered = await horde.extensions()
    fake.extensions = frozenset()
    fake.fail("/api/v1/jobs/x/", httpx.Response(502), httpx.Response(404))
    with pytest.raises(ComputeHordeError):
        await horde.fetch("x")
    assert await horde.extensions() == offered
    await horde.create(ORDER)
    assert await horde.extensions() == frozenset()


@pytest.mark.parametrize(("apart", "said"), [(-3600, "s ahead of"), (3600, "s behind"), (1, "hotkey")])
async def test_a_wrong_clock_is_named(apart: int, said: str, fake: FakeFacilitator, horde: Session) -> None:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=apart)
    body = {"error": "Invalid signature provided", "details": "the signature is too old"}
    fake.fail(POST, httpx.Response(400, json=body, headers={"Date": format_datetime(moment, usegmt=True)}))
    with pytest.raises(ComputeHordeAuthenticationError) as caught:
        await horde.create(ORDER)
    assert said in caught.value.hint
    assert caught.value.code == "signature_refused"


async def test_what_is_shared_ends_with_the_last_who_waits() -> None:
    begun, ended = [], []

    async def run() -> int:
        begun.append(1)
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(1)
        return 1

    shared = Shared(run)
    first, second = asyncio.create_task(shared()), asyncio.create_task(shared())
    await asyncio.sleep(0.001)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert (len(begun), len(ended)) == (1, 0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert (len(begun), len(ended)) == (1, 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_many_calls_are_not_all_sent_at_once(fake: FakeFacilitator) -> None:
    under_way, most = 0, 0

    async def count(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        try:
            return await fake.handle(request)
        finally:
            under_way -= 1

    horde = fake.horde(transport=httpx.MockTransport(count))
    await asyncio.gather(*(horde.create(ORDER) for _ in range(300)))
    assert most <= 64
    assert len(fake.jobs) == 300
    await horde.aclose()

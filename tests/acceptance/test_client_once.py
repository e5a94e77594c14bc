"""A creation whose answer is lost, or that is sent twice, makes one job."""

import json
import uuid

from compute_horde_sdk.v1 import ComputeHordeClient

from .conftest import RunningHorde, client_of, facilitator_of
from .proxy import Passed, proxy_of

CREATION = "POST /api/v1/job-docker/"


async def uuids(client: ComputeHordeClient) -> list[str]:
    return [job.uuid async for job in client.iter_jobs()]


async def test_the_same_signed_bytes_are_one_job(horde: RunningHorde, image: str) -> None:
    queue = f"once-{uuid.uuid4()}"
    async with proxy_of(facilitator_of(horde)) as proxy, client_of(horde, proxy.url, job_queue=queue) as client:
        job = await client.create_job("always_on.test", "SN0", image, ["true"])
        (creation,) = [request for request in proxy.passed if request.line == CREATION]
        for _ in range(2):
            head, body = (await proxy.replay(creation)).split(b"\r\n\r\n", 1)
            assert head.startswith(b"HTTP/1.1 201")
            assert json.loads(body)["uuid"] == job.uuid
        await job.wait(60)
        assert await uuids(client) == [job.uuid]


async def test_an_answer_that_is_lost_makes_no_second_job(horde: RunningHorde, image: str) -> None:
    lost: list[Passed] = []

    def swallows(request: Passed) -> bool:
        if request.line == CREATION and len(lost) < 2:
            lost.append(request)
            return True
        return False

    queue = f"once-{uuid.uuid4()}"
    async with (
        proxy_of(facilitator_of(horde), swallows) as proxy,
        client_of(horde, proxy.url, job_queue=queue) as client,
    ):
        job = await client.create_job("always_on.test", "SN0", image, ["echo", "once"])
        assert len(proxy.lines(CREATION)) == 3
        assert len({request.raw for request in proxy.passed if request.line == CREATION}) == 1
        await job.wait(60)
        assert job.result is not None
        assert job.result.stdout == "once\n"
        assert await uuids(client) == [job.uuid]


async def test_logging_in_happens_once_for_all_calls(horde: RunningHorde, image: str) -> None:
    async with proxy_of(facilitator_of(horde)) as proxy, client_of(horde, proxy.url) as client:
        for _ in range(3):
            await client.get_jobs()
        assert len(proxy.lines("GET /auth/nonce")) == 1
        assert len(proxy.lines("POST /auth/login")) == 1

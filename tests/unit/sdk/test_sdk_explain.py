"""``job.explain``: why a job has not started."""

import datetime as dt
from collections.abc import AsyncIterator

import httpx
import pytest

from compute_horde.protocol.explanation import Explanation as WireExplanation
from compute_horde.protocol.explanation import MinerTrial as WireTrial
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.scheduling import QueuePlace as WirePlace
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJob,
    ComputeHordeJobStatus,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeUnsupportedError,
    Explanation,
    MinerTrial,
    QueuePlace,
)

MOMENT = dt.datetime(2025, 1, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def client(fake: FakeFacilitator) -> AsyncIterator[ComputeHordeClient]:
    async with fake.client() as made:
        yield made


async def submit(client: ComputeHordeClient) -> ComputeHordeJob:
    return await client.create_job("always_on.test", "SN0", "alpine")


async def test_all_that_the_horde_tells(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.explanations[job.uuid] = WireExplanation(
        job_uuid=job.uuid,
        state="queued",
        summary="All 2 executors are busy.",
        reported_by="validator",
        attempt=1,
        attempts=3,
        queue=WirePlace(position=2, length=4, starts_in_s=30),
        queue_time_left_s=590,
        miners=[
            WireTrial(miner_hotkey="5A", answer="busy", message="It is busy.", tries=4, last_at=MOMENT),
            WireTrial(miner_hotkey="5B", answer="unreachable", message="No connection.", remedy="Start it."),
        ],
        remedies=["It starts when one is free."],
    )
    found = await job.explain()
    assert found == Explanation(
        job.uuid,
        ComputeHordeJobStatus.QUEUED,
        "All 2 executors are busy.",
        "validator",
        1,
        3,
        QueuePlace(2, 4, 30),
        590,
        (
            MinerTrial("5A", "busy", "It is busy.", "", 4, MOMENT),
            MinerTrial("5B", "unreachable", "No connection.", "Start it."),
        ),
        ("It starts when one is free.",),
    )
    assert str(found).splitlines() == [
        "All 2 executors are busy.",
        "  5A: It is busy.",
        "  5B: No connection. Start it.",
        "- It starts when one is free.",
    ]


async def test_the_little_that_a_facilitator_can_tell_alone(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    found = await job.explain()
    assert (found.state, found.reported_by, found.queue, found.miners) == ("sent", "facilitator", None, ())
    assert str(found) == "The job is sent."


async def test_a_facilitator_that_cannot_explain(fake: FakeFacilitator) -> None:
    fake.extensions -= {Extension.EXPLAIN}
    async with fake.client() as client:
        job = await submit(client)
        with pytest.raises(ComputeHordeUnsupportedError, match="cannot explain") as caught:
            await job.explain()
    assert caught.value.code == "unsupported"
    assert not fake.sent("GET", f"/api/v1/jobs/{job.uuid}/explanation/")


async def test_a_job_that_is_no_more(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    del fake.jobs[job.uuid]
    with pytest.raises(ComputeHordeNotFoundError):
        await job.explain()


async def test_an_explanation_of_another_job(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    body = {"job_uuid": "another", "state": "sent", "summary": "", "reported_by": "validator"}
    fake.fail(f"/api/v1/jobs/{job.uuid}/explanation/", httpx.Response(200, json=body))
    with pytest.raises(ComputeHordeResponseError, match="another") as caught:
        await job.explain()
    assert caught.value.code == "malformed_response"

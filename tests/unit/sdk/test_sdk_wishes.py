"""How long a job may wait and how often it is tried: checked, sent, or refused where nobody can keep it."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from compute_horde.protocol.extensions import Extension
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wire.wishes import WISHES
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJobSpec,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
)

POST = "/api/v1/job-docker/"


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def client(fake: FakeFacilitator) -> AsyncIterator[ComputeHordeClient]:
    async with fake.client() as made:
        yield made


def wished(fake: FakeFacilitator) -> list[dict[str, Any]]:
    """What each creation said of it."""
    bodies = [json.loads(request.content) for request in fake.sent("POST", POST)]
    return [{name: body[name] for name in body if name in WISHES} for body in bodies]


async def test_nothing_is_said_of_what_is_not_wished(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    await client.create_job("always_on.test", "SN0", "alpine")
    await client.create_job("always_on.test", "SN0", "alpine", priority=0, attempts=None)
    assert wished(fake) == [{}, {}]


async def test_both_ways_to_wish(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    given: dict[str, Any] = {
        "queue_time_limit_sec": 0,
        "attempts": 10,
        "retry_backoff_sec": 0.5,
        "priority": -100,
    }
    sent = {"queue_time_limit": 0, "attempts": 10, "retry_backoff": 0.5, "priority": -100}
    job = await client.create_job("always_on.test", "SN0", "alpine", **given)
    await client.create_job(ComputeHordeJobSpec("always_on.test", "SN0", "alpine", **given))
    assert wished(fake) == [sent, sent]
    assert (job.attempts, fake.jobs[job.uuid].priority) == (10, -100)


async def test_the_signature_does_not_depend_on_them(fake: FakeFacilitator) -> None:
    async with fake.client(now_ns=lambda: 1_700_000_000_000_000_000) as client:
        await client.create_job("always_on.test", "SN0", "alpine")
        await client.create_job("always_on.test", "SN0", "alpine", attempts=2)
    first, second = fake.sent("POST", POST)
    assert first.headers["X-CH-Signature"] == second.headers["X-CH-Signature"]
    assert first.content != second.content


@pytest.mark.parametrize(
    ("field", "value", "bounds"),
    [
        *[("queue_time_limit_sec", value, "0 to 604800") for value in (-1, 604801, 1.5, True, "60")],
        *[("attempts", value, "1 to 10") for value in (0, 11, 2.0, False, "3")],
        *[("retry_backoff_sec", value, "0 to 3600") for value in (-0.1, 3601, math.nan, math.inf, True, "1")],
        *[("priority", value, "-100 to 100") for value in (-101, 101, 0.5, True, "high")],
    ],
)
async def test_what_cannot_be_wished(
    fake: FakeFacilitator, client: ComputeHordeClient, field: str, value: Any, bounds: str
) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        await client.create_job("always_on.test", "SN0", "alpine", **{field: value})
    assert (caught.value.field, caught.value.message.startswith(f"{field} must be")) == (field, True)
    assert bounds in caught.value.message
    assert fake.requests == []


@pytest.mark.parametrize(
    "wish",
    [
        {"queue_time_limit_sec": 60},
        {"attempts": 2},
        {"retry_backoff_sec": 1},
        {"priority": 1, "attempts": 1},
    ],
)
async def test_a_facilitator_that_cannot_keep_it_is_not_asked(fake: FakeFacilitator, wish: dict[str, Any]) -> None:
    fake.extensions -= {Extension.QUEUE}
    async with fake.client() as client:
        with pytest.raises(ComputeHordeUnsupportedError, match=f"cannot keep {next(iter(wish))}") as caught:
            await client.create_job("always_on.test", "SN0", "alpine", **wish)
    assert "run_until_complete" in caught.value.hint
    assert fake.jobs == {}


async def test_what_every_facilitator_does_anyway_is_not_said(fake: FakeFacilitator) -> None:
    fake.extensions = frozenset()
    async with fake.client() as client:
        job = await client.create_job(
            "always_on.test", "SN0", "alpine", queue_time_limit_sec=0, attempts=1, retry_backoff_sec=5
        )
    assert wished(fake) == [{}]
    assert (job.attempt, job.attempts, job.queue) == (1, None, None)


async def test_a_repetition_waits_as_long_as_the_validator_likes(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    """It is compared at leisure: a job that must not wait says nothing of its repetition."""
    await client.create_job("always_on.test", "SN0", "alpine", run_cross_validation=True, queue_time_limit_sec=0)
    assert wished(fake) == [{"queue_time_limit": 0}, {}]

"""The facilitator's contract over PostgreSQL: what its statements mean must not depend on the database."""

from collections.abc import AsyncIterator

import pytest
from tests.contract.facilitator import (
    test_attempts,
    test_cancel,
    test_claims,
    test_explanation,
    test_facilitator_metrics,
    test_retention,
)
from tests.contract.facilitator.bench import Bench, Clock, open_bench
from tests.contract.facilitator.conftest import alice, bob, clock, other_key, ours, validator_key  # noqa: F401 - fixtures

SUITES = (
    *(test_attempts, test_cancel, test_claims, test_explanation),
    *(test_facilitator_metrics, test_retention),
)
for suite in SUITES:
    globals().update({name: found for name, found in vars(suite).items() if name.startswith("test_")})


@pytest.fixture
async def bench(postgres_url: str, clock: Clock) -> AsyncIterator[Bench]:  # noqa: F811 - a fixture's argument
    async with open_bench(
        postgres_url, clock, retention_days=7, result_retention_days=2, result_bytes=12_000
    ) as bench:
        yield bench

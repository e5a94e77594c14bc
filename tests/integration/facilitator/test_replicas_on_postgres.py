"""The suite of two replicas over PostgreSQL, each with connections, bus and leases of its own."""

import pytest
from tests.contract.facilitator import test_replicas as suite
from tests.contract.facilitator.conftest import alice, clock  # noqa: F401 - fixtures

pair = suite.pair
globals().update({name: found for name, found in vars(suite).items() if name.startswith("test_")})


@pytest.fixture
def shared(postgres_url: str) -> suite.Shared:
    return suite.Shared(postgres_url, None)

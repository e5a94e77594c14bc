"""What the facilitator's contract tests share."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.facilitator.bench import ALICE, BOB, OTHER, VALIDATOR, Bench, Clock, open_bench

from compute_horde.protocol.extensions import announcement
from compute_horde.protocol.facilitator_validator import HEADER_MAX_FRAME


@pytest.fixture
def alice() -> Any:
    return ALICE


@pytest.fixture
def bob() -> Any:
    return BOB


@pytest.fixture
def validator_key() -> Any:
    return VALIDATOR


@pytest.fixture
def other_key() -> Any:
    return OTHER


@pytest.fixture
def ours() -> dict[str, str]:
    """What a validator of ours sends with its handshake."""
    return announcement()


@pytest.fixture
def big_frames() -> dict[str, str]:
    return {HEADER_MAX_FRAME: str(50 * 1024 * 1024)}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bench(tmp_path: Path, clock: Clock) -> AsyncIterator[Bench]:
    async with open_bench(f"sqlite+aiosqlite:///{tmp_path}/facilitator.db", clock) as bench:
        yield bench

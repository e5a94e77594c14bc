"""What the real runtime does with an engine that goes away, without an engine."""

from typing import Any, cast

import aiohttp
import pytest
from aiodocker import DockerError

from compute_horde.executor.docker_container import DockerHandle
from compute_horde.executor.errors import JobFailure


class Container:
    """Stops by raising."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def stop(self, t: int) -> None:
        raise self._error


def handle(error: Exception) -> DockerHandle:
    return DockerHandle(cast("Any", Container(error)))


async def test_an_engine_that_is_gone_while_a_container_is_stopped() -> None:
    with pytest.raises(JobFailure) as caught:
        await handle(aiohttp.ServerDisconnectedError()).stop(1)
    assert caught.value.problem.code == "engine_unavailable"


async def test_a_container_that_has_ended_already_needs_no_stopping() -> None:
    await handle(DockerError(304, "not modified")).stop(1)

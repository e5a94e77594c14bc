"""Chaos: whole hordes of real processes on a real engine, which are killed, cut off and starved while jobs run."""

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.conftest import BUSYBOX_IMAGE, busybox_image, engine, registry  # noqa: F401 - fixtures
from tests.postgres import Postgres, postgres  # noqa: F401 - fixtures

from compute_horde.stack.image import small_image
from compute_horde_sdk.v1 import ComputeHordeClient

from .engine import Watch, docker
from .held import HeldServer
from .scenes import Scene, is_up
from .services import Services
from .wires import Loop, Wire


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def watch() -> Iterator[Watch]:
    """Every start of a job's container since the beginning of the session."""
    found = Watch()
    yield found
    found.close()


@pytest.fixture(scope="session")
def image() -> str:
    return asyncio.run(small_image())


@pytest.fixture
def server() -> Iterator[HeldServer]:
    held = HeldServer()
    yield held
    held.close()


@pytest.fixture
def pulled(loop_thread: Loop, registry: str) -> Iterator[Callable[[], str]]:  # noqa: F811 - the fixture
    """Names of images that the engine has to pull, through a wire that holds the pull; call with no argument.

    ``pulled.release()`` lets all pulls go on.
    """
    wire = Wire(loop_thread, lambda: int(registry.rpartition(":")[2]))
    wire.hold()
    names = []

    def make() -> str:
        name = f"held/{uuid.uuid4().hex}:1"
        docker("tag", BUSYBOX_IMAGE, f"{registry}/{name}")
        docker("push", f"{registry}/{name}")
        docker("rmi", f"{registry}/{name}")
        names.append(f"127.0.0.1:{wire.port}/{name}")
        return names[-1]

    make.release = wire.release  # type: ignore[attr-defined] # a callable that can do one thing more
    yield make
    wire.close()
    for name in names:
        subprocess.run(["docker", "rmi", name], capture_output=True, check=False)


@pytest.fixture(params=["sqlite", "postgres"])
def services(
    request: pytest.FixtureRequest, tmp_path: Path, loop_thread: Loop, watch: Watch
) -> Iterator[Services]:
    """A horde whose services are started one by one; on each database in turn."""
    if request.param == "sqlite":
        made = Services(tmp_path, loop_thread, lambda name: f"sqlite:///{tmp_path}/{name}.db")
    else:
        server: Postgres = request.getfixturevalue("postgres")
        databases: dict[str, str] = {}
        made = Services(tmp_path, loop_thread, lambda name: server.url(databases.setdefault(name, server.fresh())))
    try:
        yield made
    finally:
        made.stop()
        for name in docker("ps", "-aq", "--filter", f"label=compute-horde.executor={made.executor_id}").split():
            docker("rm", "-f", name)


@pytest.fixture
async def scene(
    services: Services,
    server: HeldServer,
    image: str,
    pulled: Callable[[], str],
    busybox_image: str,  # noqa: F811 - the fixture
) -> AsyncIterator[Scene]:
    """A horde that is up, and a client of it."""
    services.start("facilitator", "miner", "validator")
    keys = services.keys
    async with ComputeHordeClient(
        keys["user"], keys["validator"].ss58_address, facilitator_url=services.url
    ) as client:
        try:
            first = await is_up(client, image)
            await first.wait(60)
            assert first.status.value == "completed", first.error
        except Exception as error:
            raise AssertionError(services.logs()) from error
        yield Scene(services, server, client, image, pulled)

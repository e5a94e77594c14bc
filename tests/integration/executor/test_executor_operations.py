"""Health and metrics of an executor process, on a port of their own."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.integration.executor.test_executor_killed import Site, site

pytestmark = pytest.mark.engine

HEAVY = ["prometheus_client", "litestar", "uvicorn", "sqlalchemy"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def shown(port: int, token: str) -> dict[str, httpx.Response]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        answers = {path: await http.get(path) for path in ("/health/live", "/health/ready", "/metrics")}
        allowed = {"Authorization": f"Bearer {token}"}
        return {**answers, "allowed": await http.get("/metrics", headers=allowed)}


async def finish(here: Site, process: "subprocess.Popen[bytes]") -> None:
    await here.miner.cancel()
    assert (await here.ended(process)).context["problem"]["code"] == "cancelled"


async def test_an_executor_shows_its_health_and_figures(tmp_path: Path, busybox_image: str) -> None:
    port = free_port()
    async with site(tmp_path, busybox_image, None, "echo begun; exec sleep 600") as here:
        process = here.launch(operations_port=str(port), operations_token="t0ken")
        await here.printed("begun")
        answers = await shown(port, "t0ken")
        await finish(here, process)
    assert answers["/health/live"].status_code == 200
    assert answers["/health/ready"].json()["checks"].keys() == {"engine", "disk"}
    assert answers["/health/ready"].status_code == 200
    assert answers["/metrics"].status_code == 401
    text = answers["allowed"].text
    label = 'executor_class="always_on.test",stage="volume_download"'
    assert f"compute_horde_executor_stage_duration_seconds_count{{{label}}} 1.0" in text
    assert "\ncompute_horde_executor_disk_free_bytes " in text


async def test_an_executor_that_finds_the_port_taken_works_without(tmp_path: Path, busybox_image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with site(tmp_path, busybox_image, None, "echo begun; exec sleep 600") as here:
            process = here.launch(operations_port=port)
            await here.printed("begun")
            await finish(here, process)


@pytest.mark.parametrize(("port", "loaded"), [({}, []), ({"HORDE_EXECUTOR_OPERATIONS_PORT": "0"}, HEAVY)])
def test_an_executor_that_nobody_watches_loads_no_server(
    tmp_path: Path, port: dict[str, str], loaded: list[str]
) -> None:
    """It starts the faster. With no engine to warm up, it ends at once."""
    check = (
        "import sys; from compute_horde.cli.main import app\n"
        "app(['executor', '--warm'], standalone_mode=False)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    environment = {
        "HORDE_EXECUTOR_DOCKER_URL": f"unix://{tmp_path}/none",
        "HORDE_EXECUTOR_WORK_DIR": str(tmp_path / "work"),
        **port,
    }
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(loaded), done.stderr

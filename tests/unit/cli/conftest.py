"""``horde`` in this process, against a facilitator without sockets."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from compute_horde.cli.link import Sleep
from compute_horde.cli.main import app
from compute_horde.cli.place import Place
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import ComputeHordeClient

UUID = "00000000-0000-4000-8000-000000000000"
HERE = ["--facilitator", "http://horde.test", "--validator", "validator", "--wallet-name", "nobody"]


@dataclass
class Served(FakeFacilitator):
    """``after``: called with each request once it has been answered."""

    after: Callable[["Served", httpx.Request], None] = lambda fake, request: None

    async def handle(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle(request)
        self.after(self, request)
        return answer


def ends(
    status: str = "completed", metadata: dict[str, Any] | None = None
) -> Callable[[Served, httpx.Request], None]:
    """Every job ends so, once somebody looks at it."""

    def after(fake: Served, request: httpx.Request) -> None:
        job_uuid = request.url.path.rstrip("/").rpartition("/")[2]
        if job_uuid in fake.jobs and fake.jobs[job_uuid].status in ("sent", "accepted"):
            fake.advance(job_uuid, status, metadata)

    return after


def printed(stdout: str = "", stderr: str = "", **more: Any) -> dict[str, Any]:
    """The metadata of a job that completed."""
    return {"miner_response": {"docker_process_stdout": stdout, "docker_process_stderr": stderr, **more}}


def failed(code: int, stdout: str = "", stderr: str = "") -> dict[str, Any]:
    """The metadata of a job whose container ended with ``code``."""
    return {
        "job_failure_details": {
            "reason": "nonzero_return_code",
            "stage": "execution",
            "message": f"exit code {code}",
            "docker_process_exit_status": code,
            "docker_process_stdout": stdout,
            "docker_process_stderr": stderr,
        }
    }


def body_of_the_job(fake: Served) -> dict[str, object]:
    """What was sent to create the only job."""
    (request,) = fake.sent("POST", "/api/v1/job-docker/")
    found: dict[str, object] = json.loads(request.content)
    return found


@dataclass
class Cli:
    """``cli("jobs", "list")``: the command line, its client talking to ``fake``. ``places``: where it was sent."""

    fake: Served
    places: list[Place] = field(default_factory=list)

    def __call__(self, *args: str, here: bool = True, **options: Any) -> Result:
        place = HERE if here else []
        command = 2 if args[0] == "jobs" else 1
        return CliRunner().invoke(
            app, [*args[:command], *place, *args[command:]], obj=self.connect, catch_exceptions=False, **options
        )

    def connect(self, place: Place, sleep: Sleep) -> ComputeHordeClient:
        self.places.append(place)
        return self.fake.client(place.facilitator, place.queue)

    def job(self, *args: str, queue: str = "") -> str:
        """The uuid of a new job."""
        done = self("run", "--detach", *(["--queue", queue] if queue else []), "busybox", "--", *args)
        assert done.exit_code == 0, done.output
        return done.stdout.strip()


@pytest.fixture
def fake() -> Served:
    return Served()


@pytest.fixture
def cli(fake: Served) -> Cli:
    return Cli(fake)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the user's own is read or written."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("PROFILE", "FACILITATOR_URL", "VALIDATOR_HOTKEY", "JOB_QUEUE", "KEY_FILE"):
        monkeypatch.delenv(f"HORDE_{name}", raising=False)
    return tmp_path

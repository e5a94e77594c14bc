"""A real horde as its own process, and the released client in an environment of its own."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Wallet
from tests.postgres import database_url, postgres, postgres_url  # noqa: F401 - fixtures

from compute_horde.stack.fileserver import FileServer
from compute_horde.stack.image import small_image
from compute_horde_sdk.v1 import ComputeHordeClient, ComputeHordeJob

READY_SECONDS = 60
ROOT = Path(__file__).parents[2]
HORDE = (sys.executable, "-m", "compute_horde.cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


@dataclass
class RunningHorde:
    """A ``horde up --json`` that said it is ready."""

    process: "subprocess.Popen[str]"
    info: dict[str, Any]
    home: Path

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


def start_horde(home: Path, *options: str) -> RunningHorde:
    """Start one and wait for its line of JSON; its stderr goes to a file beside its folder."""
    log = home.parent / f"{home.name}.log"
    with log.open("a") as stderr:
        process = subprocess.Popen(
            [*HORDE, "up", "--dir", str(home), "--port", "0", "--json", *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"horde up ended: {log.read_text()[-3000:]}"
    return RunningHorde(process, json.loads(line), home)


@contextlib.contextmanager
def running(home: Path, *options: str) -> Iterator[RunningHorde]:
    horde = start_horde(home, *options)
    try:
        yield horde
    finally:
        if horde.process.poll() is None:
            horde.stop()
        assert horde.process.stdout is not None
        horde.process.stdout.close()


@contextlib.asynccontextmanager
async def client_of(
    horde: RunningHorde, url: str | None = None, **options: Any
) -> AsyncIterator[ComputeHordeClient]:
    """A client of the horde's user. ``url``: of something before the facilitator."""
    async with ComputeHordeClient(
        user_of(horde), horde.info["validator_hotkey"], facilitator_url=url or facilitator_of(horde), **options
    ) as client:
        yield client


def user_of(horde: RunningHorde) -> Any:
    """The hotkey of the horde's user."""
    info = horde.info
    return Wallet(info["wallet_name"], info["wallet_hotkey"], info["wallet_path"]).hotkey


def facilitator_of(horde: RunningHorde) -> str:
    return str(horde.info["facilitator_url"])


ANOTHER_PROCESS = """
import asyncio, json, sys
from bittensor_wallet import Wallet
from compute_horde_sdk.v1 import *

given = json.loads(sys.argv[1])

{code}

async def main():
    wallet = Wallet(given["wallet_name"], given["wallet_hotkey"], given["wallet_path"])
    client = ComputeHordeClient(
        wallet.hotkey, given["validator_hotkey"], given["queue"], given["facilitator_url"]
    )
    print(json.dumps(await work(client)))
    if hasattr(client, "aclose"):
        await client.aclose()

asyncio.run(main())
"""


async def in_another_process(
    horde: RunningHorde, code: str, queue: str | None = None, python: Path | None = None, **given: str
) -> Any:
    """What ``async def work(client)`` in ``code`` returns, run by a new client of the same user elsewhere.

    ``python``: of an environment with another client library.
    """
    process = await asyncio.create_subprocess_exec(
        python or sys.executable,
        "-c",
        ANOTHER_PROCESS.format(code=code),
        json.dumps({**horde.info, "queue": queue, **given}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return json.loads(stdout)


async def reached(job: ComputeHordeJob, *statuses: str) -> None:
    """Return when a client that looks from outside sees the job in one of these states."""
    for _ in range(600):
        await job.refresh_from_facilitator()
        if job.status.value in statuses:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job is {job.status.value} for 30 s")


@pytest.fixture(scope="session")
def horde(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHorde]:
    """One horde for all acceptance tests that do not harm it."""
    with running(tmp_path_factory.mktemp("horde") / "home", "--executors", "4") as started:
        yield started


@pytest.fixture(scope="session")
def image() -> str:
    return asyncio.run(small_image())


@pytest.fixture
def files() -> Iterator[FileServer]:
    with FileServer({"/numbers.txt": b"3\n4\n5\n"}) as server:
        yield server


@pytest.fixture(scope="session")
def released_client() -> Path:
    """The Python of an environment that holds ``compute-horde-sdk==0.0.19`` from PyPI."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is needed to install the released client; `make setup` installs it"
    folder = ROOT / ".cache" / "released-client"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        # its metadata asks for a certifi that PyPI does not have yet
        override = ROOT / ".cache" / "released-client-overrides.txt"
        override.parent.mkdir(exist_ok=True)
        override.write_text("certifi>=2024\n")
        subprocess.run([uv, "venv", "--clear", "-q", "-p", ">=3.11,<3.13", str(folder)], check=True)
        install = [uv, "pip", "install", "-q", "--python", str(python), "--override", str(override)]
        subprocess.run([*install, "compute-horde-sdk==0.0.19"], check=True, timeout=300)
        (folder / "complete").touch()
    return python


@pytest.fixture
def run_cli() -> Any:
    """``run_cli("run", ...)``: the command line, as a process."""

    def call(
        *args: str, env: dict[str, str] | None = None, timeout: float = 90
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*HORDE, *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return call

"""A real horde as its own process, and the released client in an environment of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compute_horde.stack.fileserver import FileServer
from compute_horde.stack.image import small_image

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


@pytest.fixture(scope="session")
def horde(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHorde]:
    """One horde for all acceptance tests that do not harm it."""
    with running(tmp_path_factory.mktemp("horde") / "home", "--executors", "4") as started:
        yield started


@pytest.fixture(scope="session")
def image() -> str:
    import asyncio

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

"""A ``horde up`` of its own for a measurement."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class RunningHorde:
    pid: int
    info: dict[str, Any]


@contextlib.contextmanager
def running_horde(folder: Path) -> Iterator[RunningHorde]:
    command = [
        sys.executable,
        "-m",
        "compute_horde.cli",
        "up",
        "--dir",
        str(folder / "home"),
        "--port",
        "0",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield RunningHorde(process.pid, json.loads(process.stdout.readline()))
        finally:
            process.terminate()

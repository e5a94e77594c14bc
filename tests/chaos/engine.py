"""What the container engine says: which containers were started, and which are left."""

import json
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

STARTED_SECONDS = 20
TOKEN_LABEL = "compute-horde.token"


def docker(*args: str) -> str:
    return subprocess.run(["docker", *args], capture_output=True, text=True, check=True, timeout=60).stdout


class Starts(Protocol):
    """Who knows which containers were started."""

    def starts_of(self, job_uuid: str) -> dict[str, int]:
        """Starts of this job's containers by token, one token an attempt."""


class WrittenStarts:
    """What the fake engine of a light miner has written down."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def starts_of(self, job_uuid: str) -> dict[str, int]:
        return Counter(line for line in self._file.read_text().splitlines() if job_uuid in line)


class Watch:
    """Counts the starts of job containers, from now on, by the token of the attempt."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()
        command = ["docker", "events", "--filter", "event=start", "--filter", f"label={TOKEN_LABEL}"]
        self._process = subprocess.Popen(
            [*command, "--format", "{{json .}}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event: dict[str, Any] = json.loads(line)
            self.starts[event["Actor"]["Attributes"][TOKEN_LABEL]] += 1

    def starts_of(self, job_uuid: str) -> dict[str, int]:
        return {token: count for token, count in self.starts.items() if job_uuid in token}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def containers(owner: str, *states: str) -> dict[str, str]:
    """Containers of this owner's executors, in one of these states or in any: token to name."""
    lines = docker(
        "ps",
        "-a",
        *(f"--filter=status={state}" for state in states),
        "--filter",
        f"label=compute-horde.executor={owner}",
        "--format",
        "{{.Names}} {{.Label " + json.dumps(TOKEN_LABEL) + "}}",
    )
    return {token: name for name, token in (line.split(" ", 1) for line in lines.splitlines())}


def touch(owner: str, job_uuid: str, path: str) -> None:
    """Make a file in the container of a job, once it runs."""
    end = time.monotonic() + STARTED_SECONDS
    while True:
        running = [name for token, name in containers(owner, "running").items() if job_uuid in token]
        if running:
            break
        assert time.monotonic() < end, f"no container of {job_uuid} runs"
        time.sleep(0.05)
    docker("exec", running[0], "touch", path)

"""Facilitators, a validator, a miner and its executors as real processes, with a cable between any two of them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from compute_horde.chain.keys import make_wallet

from .wires import Loop, Wire

HORDE = (sys.executable, "-m", "compute_horde.cli")
MARK = "HORDE_CHAOS"
"""In the environment of every process of one horde, executors included."""

UP_SECONDS = 30
ROOT = Path(__file__).parents[2]
EXECUTORS = {"always_on.test": 10, "always_on.cpu.8c.16gb": 1}


class Services:
    """``database_url(name)``: of each service: ``facilitator``, ``validator``, ``miner``, and what is added."""

    def __init__(self, folder: Path, loop: Loop, database_url: Callable[[str], str]) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        self._database_url = database_url
        self.keys: dict[str, Any] = {
            name: make_wallet(folder / "wallets", name, "default") for name in ("user", "validator", "miner")
        }
        self.ports = {name: free_port() for name in ("facilitator", "miner")}
        self.to_facilitator = Wire(loop, lambda: self.ports["facilitator"])
        self.to_miner = Wire(loop, lambda: self.ports["miner"])
        self.from_executors = Wire(loop, lambda: self.ports["miner"])
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.executor_id = f"chaos-{self.mark}"
        self._write_chain()
        for name, text in self._configs().items():
            self.configure(name, text)

    @property
    def url(self) -> str:
        """Where clients reach the facilitator."""
        return f"http://127.0.0.1:{self.ports['facilitator']}"

    def configure(self, name: str, text: str, database: str | None = None) -> None:
        """Write the settings of a service."""
        common = (
            f"chain_file = {json.dumps(str(self.folder / 'chain.toml'))}\n"
            f"database_url = {json.dumps(database or self._database_url(name))}\n"
        )
        (self.folder / f"{name}.toml").write_text(common + text)

    def start(self, *names: str, command: str | None = None) -> None:
        """Start services; ``command`` where it is not the name."""
        for name in names:
            config = str(self.folder / f"{name}.toml")
            self.run(name, *HORDE, command or name, "--config", config)

    def start_light_miner(self, *fake: str) -> None:
        """The miner, with its executors in its own process. ``fake``: see there."""
        config = str(self.folder / "miner.toml")
        self.run("miner", sys.executable, "-m", "tests.chaos.light_miner", config, *fake)

    def run(self, name: str, *command: str) -> None:
        """Run a command as the service of this name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=ROOT,
            )

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        self.processes[name].kill()
        self.processes[name].wait(10)

    def kill_executors(self) -> int:
        """SIGKILL every executor that is at work or waits for work; how many."""
        found = self.executors()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def executors(self) -> list[int]:
        return [pid for pid, arguments in self._ours() if "executor" in arguments]

    def pids(self) -> list[int]:
        """Every process of this horde."""
        return [pid for pid, _ in self._ours()]

    def logs(self) -> str:
        """The end of what each service said."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {path.stem}\n{path.read_text(errors='replace')[-4000:]}" for path in files)

    def stop(self) -> None:
        """Kill all that is left."""
        for wire in (self.to_facilitator, self.to_miner, self.from_executors):
            wire.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait(10)
        for pid, _ in self._ours():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # its inside

    def _ours(self) -> Iterator[tuple[int, list[str]]]:
        mark = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")

    def _environment(self) -> Mapping[str, str]:
        # a coverage run of the tests must not write from processes that are killed
        left_out = ("COV_", "PYTHONDONTWRITEBYTECODE")  # and nobody waits for a restart that compiles everything
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        return kept | {
            MARK: self.mark,
            "HORDE_EXECUTOR_ALLOW_PRIVATE_NETWORKS": "true",
            "HORDE_EXECUTOR_WORK_DIR": str(self.folder / "work"),
            "HORDE_EXECUTOR_EXECUTOR_ID": self.executor_id,
        }

    def _write_chain(self) -> None:
        addresses = {name: key.ss58_address for name, key in self.keys.items()}
        (self.folder / "chain.toml").write_text(
            f"validators = {json.dumps([addresses['validator']])}\n"
            f"users = {json.dumps([addresses['user']])}\n"
            f"signers = {json.dumps([addresses['user']])}\n"
            f"[[miners]]\nhotkey = {json.dumps(addresses['miner'])}\n"
            f'address = "127.0.0.1"\nport = {self.to_miner.port}\n'
        )

    def _configs(self) -> dict[str, str]:
        wallet = f'wallet_path = {json.dumps(str(self.folder / "wallets"))}\nwallet_hotkey = "default"\n'
        executors = "".join(f"{json.dumps(name)} = {count}\n" for name, count in EXECUTORS.items())
        return {
            "facilitator": f"port = {self.ports['facilitator']}\n",
            "miner": (
                f'port = {self.ports["miner"]}\n{wallet}wallet_name = "miner"\nwarm = 2\n'
                f'executor_address = "ws://127.0.0.1:{self.from_executors.port}"\n[executors]\n{executors}'
            ),
            "validator": (
                f'facilitator_url = "ws://127.0.0.1:{self.to_facilitator.port}/ws/v0/"\n'
                f'{wallet}wallet_name = "validator"\n'
            ),
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], bool], what: Callable[[], str], within_s: float = UP_SECONDS) -> None:
    """Wait, without an event loop. :raises AssertionError: it did not become true."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"not within {within_s} s: {what()}"
        time.sleep(0.05)

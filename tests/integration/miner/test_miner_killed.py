"""A miner that is killed with SIGKILL at each stage of a job, with real executor processes and a real engine."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from compute_horde.executor.docker_options import OWNER_LABEL
from compute_horde.miner.testing import ALICE, QUIET_EXTENSIONS, TEST, Peer, finished_receipt, initial, request
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, TRUSTED_MINER_HOTKEY
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.extensions import announcement
from compute_horde.protocol.validator_miner import VALIDATOR_PATH, ExecutorTiming, ValidatorAuthForMiner
from compute_horde.protocol.volumes import SingleFileVolume
from compute_horde.transport.channel import DialFailed
from compute_horde.transport.websocket import WebSocketDialer

from ..conftest import HttpServer, docker

pytestmark = pytest.mark.engine

STORY = ["V0AcceptJobRequest", "V0ExecutorReadyRequest", "V0VolumesReadyRequest", "V0ExecutionDoneRequest"]
TIMING = ExecutorTiming(allowed_leeway=5, download_time_limit=60, execution_time_limit=60, upload_time_limit=60)


class MinerProcess:
    """``horde miner``, which trusts one validator, on a port and a database that stay the same."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        chain = folder / "chain.toml"
        chain.write_text(f'validators = ["{ALICE.ss58_address}"]\n')
        self._config = folder / "miner.toml"
        self._config.write_text(
            f"port = {self.port}\nchain_file = {json.dumps(str(chain))}\n"
            f"database_url = {json.dumps(database_url)}\n"
            f'trusted_for = "{ALICE.ss58_address}"\nwarm = 1\n[executors]\n"{TEST.value}" = 2\n'
        )
        self._env = os.environ | {
            "HORDE_EXECUTOR_WORK_DIR": str(folder / "work"),
            "HORDE_EXECUTOR_ALLOW_PRIVATE_NETWORKS": "true",
            "HORDE_EXECUTOR_EXECUTOR_ID": f"test:{folder}",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._peers: list[Peer] = []

    def start(self) -> None:
        with (self.folder / "miner.log").open("a") as log:
            command = (sys.executable, "-m", "compute_horde.cli", "miner", "--config", str(self._config))
            self._process = subprocess.Popen(command, stderr=log, env=self._env)

    def end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    async def hang_up(self) -> None:
        for peer in self._peers:
            await peer.channel.close()

    def kill_executors(self) -> None:
        for pid in self.executors():
            os.kill(pid, signal.SIGKILL)

    def executors(self) -> list[int]:
        """Executor processes that were started with this miner's work folder."""
        mark = f"HORDE_EXECUTOR_WORK_DIR={self.folder / 'work'}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0") and (
                        b"executor" in (entry / "cmdline").read_bytes().split(b"\0")
                    ):
                        found.append(int(entry.name))
        return found

    async def enter(self) -> Peer:
        """The validator, connected and authenticated."""
        url = f"ws://127.0.0.1:{self.port}{VALIDATOR_PATH}{ALICE.ss58_address}"
        async with asyncio.timeout(30):
            while True:
                try:
                    dialled = await WebSocketDialer().dial(
                        url, headers=announcement(QUIET_EXTENSIONS), max_frame_bytes=MAX_MINER_FRAME_BYTES
                    )
                    break
                except DialFailed:
                    ended = self._process is None or self._process.poll() is not None
                    assert not ended, (self.folder / "miner.log").read_text()[-3000:]
                    await asyncio.sleep(0.05)
        self._peers.append(peer := Peer(dialled))
        await peer.say(ValidatorAuthForMiner.make(ALICE, TRUSTED_MINER_HOTKEY, int(time.time())))
        await peer.expect("V0ExecutorManifestRequest")
        return peer


@pytest.fixture
async def miner(tmp_path: Path, busybox_image: str) -> AsyncIterator[MinerProcess]:
    process = MinerProcess(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'miner.db'}")
    process.start()
    yield process
    await process.hang_up()
    process.end(signal.SIGKILL)
    process.kill_executors()
    for name in docker("ps", "-aq", "--filter", f"label={OWNER_LABEL}=test:{tmp_path}").split():
        docker("rm", "-f", name)


class Gate:
    """A file of the job's volume that comes when the test opens the gate."""

    def __init__(self, server: HttpServer) -> None:
        self.asked, self.open = threading.Event(), threading.Event()
        server.routes["/file"] = self._answer
        self.url = server.url("/file")

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.set()
        self.open.wait(60)
        with contextlib.suppress(OSError):
            request.send_response(200)
            request.send_header("Content-Length", "2")
            request.end_headers()
            request.wfile.write(b"hi")


def job_request(job: str, image: str, seconds: float) -> Any:
    script = f"echo begun; cat /volume/file; sleep {seconds}; echo over"
    return request(job, docker_image=image, docker_run_cmd=["sh", "-c", script])


async def hear_until(peer: Peer, last: str, limit_s: float = 60) -> tuple[list[str], dict[str, Any]]:
    """The types of all messages up to this one, and this one."""
    types: list[str] = []
    async with asyncio.timeout(limit_s):
        while True:
            message: dict[str, Any] = json.loads(await peer.channel.receive())
            types.append(message["message_type"])
            if types[-1] == last:
                return types, message
            assert "Failed" not in types[-1], message


async def settle(peer: Peer) -> list[str]:
    """What else has come for now."""
    types: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            while True:
                types.append(json.loads(await peer.channel.receive())["message_type"])
    return types


def starts_of(job: str, since: float) -> int:
    """How often a container of this job was started."""
    moments = ("--since", f"{since - 1:.0f}", "--until", f"{time.time() + 1:.0f}")
    names = docker(
        "events", *moments, "--filter", "event=start", "--format", "{{.Actor.Attributes.name}}"
    ).splitlines()
    return sum(job in name for name in names)


@pytest.mark.parametrize("victims", ["miner", "miner and executor"])
@pytest.mark.parametrize("stage", ["accepted", "ready", "download", "running", "ended"])
async def test_killed_at_each_stage(
    miner: MinerProcess, busybox_image: str, http_server: HttpServer, stage: str, victims: str
) -> None:
    job, began, gate = str(uuid.uuid4()), time.time(), Gate(http_server)
    if stage != "download":
        gate.open.set()
    validator = await miner.enter()
    volume = SingleFileVolume(url=gate.url, relative_path="file")
    first = initial(job, docker_image=busybox_image, volume=volume, timing=TIMING)
    await validator.say(first)
    await hear_until(validator, "V0AcceptJobRequest")
    asked = stage not in ("accepted", "ready")
    if stage != "accepted":
        await hear_until(validator, "V0ExecutorReadyRequest")
    if asked:
        await validator.say(job_request(job, busybox_image, 0.3 if stage == "ended" else 2))
    if stage == "download":
        await asyncio.to_thread(gate.asked.wait, 30)
    if stage == "running":
        await hear_until(validator, "V0VolumesReadyRequest")
        await asyncio.sleep(0.7)
    if stage == "ended":
        await validator.channel.close()
        await asyncio.sleep(2)
    miner.end(signal.SIGKILL)
    if victims != "miner" and stage != "ended":
        miner.kill_executors()
    gate.open.set()
    miner.start()
    again = await miner.enter()
    heard: list[str] = []
    if not asked:
        heard, _ = await hear_until(again, "V0ExecutorReadyRequest")
        await again.say(job_request(job, busybox_image, 0.3))
    rest, result = await hear_until(again, "V0JobFinishedRequest")
    told = [name for name in heard + rest if name != "V0MachineSpecsRequest"]
    assert told == [*STORY, "V0JobFinishedRequest"]
    assert result["docker_process_stdout"] == "begun\nhiover\n"
    assert await settle(again) == []
    assert starts_of(job, began) == 1
    await again.say(finished_receipt(job, key=ALICE))
    await all_gone(miner, job)


async def all_gone(miner: MinerProcess, job: str) -> None:
    """Nothing of the job is left on the machine: no container, no folder, no stand-by."""
    async with asyncio.timeout(30):
        while True:
            left = await asyncio.to_thread(docker, "ps", "-a", "--format", "{{.Names}}")
            folders = [each.name for each in (miner.folder / "work").iterdir()]
            if job not in left and not any(job in name for name in folders) and len(miner.executors()) <= 1:
                return
            await asyncio.sleep(0.1)


async def test_a_job_that_ends_while_the_miner_is_down_is_delivered(
    miner: MinerProcess, busybox_image: str
) -> None:
    job = str(uuid.uuid4())
    validator = await miner.enter()
    await validator.say(initial(job, docker_image=busybox_image, timing=TIMING))
    await hear_until(validator, "V0ExecutorReadyRequest")
    await validator.say(request(job, docker_image=busybox_image, docker_run_cmd=["sleep", "0.5"]))
    await hear_until(validator, "V0VolumesReadyRequest")
    miner.end(signal.SIGTERM)
    await asyncio.sleep(2)
    miner.start()
    again = await miner.enter()
    told, _ = await hear_until(again, "V0JobFinishedRequest")
    assert [name for name in told if name != "V0MachineSpecsRequest"] == [*STORY, "V0JobFinishedRequest"]


async def test_a_job_is_cancelled_over_a_restart(miner: MinerProcess, busybox_image: str) -> None:
    job = str(uuid.uuid4())
    validator = await miner.enter()
    await validator.say(initial(job, docker_image=busybox_image, timing=TIMING))
    await hear_until(validator, "V0ExecutorReadyRequest")
    await validator.say(request(job, docker_image=busybox_image, docker_run_cmd=["sleep", "50"]))
    await hear_until(validator, "V0VolumesReadyRequest")
    miner.end(signal.SIGKILL)
    miner.start()
    again = await miner.enter()
    await hear_until(again, "V0VolumesReadyRequest")
    await again.say(V0CancelJobRequest(job_uuid=job))
    async with asyncio.timeout(30):
        end = json.loads(await again.channel.receive())
    assert end["context"]["problem"]["code"] == "cancelled"
    await all_gone(miner, job)

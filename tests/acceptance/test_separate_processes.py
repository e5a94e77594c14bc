"""Each service as its own process, configured by TOML files, with executors as warm processes of the miner."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compute_horde.chain.keys import make_wallet
from compute_horde_sdk.v1 import ComputeHordeClient, ComputeHordeError, ComputeHordeJobStatus

from .conftest import HORDE


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def services(tmp_path: Path) -> Iterator[dict[str, Any]]:
    keys = {name: make_wallet(tmp_path / "wallets", name, "default") for name in ("user", "validator", "miner")}
    front, mine = free_port(), free_port()
    addresses = {name: key.ss58_address for name, key in keys.items()}
    chain = tmp_path / "chain.toml"
    chain.write_text(
        f"validators = {json.dumps([addresses['validator']])}\nusers = {json.dumps([addresses['user']])}\n"
        f"signers = {json.dumps([addresses['user']])}\n[[miners]]\nhotkey = {json.dumps(addresses['miner'])}\n"
        f'address = "127.0.0.1"\nport = {mine}\n'
    )
    wallet = f'wallet_path = {json.dumps(str(tmp_path / "wallets"))}\nwallet_hotkey = "default"\n'

    def config(name: str, text: str) -> Path:
        database = f"sqlite+aiosqlite:///{tmp_path}/{name}.db"
        file = tmp_path / f"{name}.toml"
        file.write_text(f"chain_file = {json.dumps(str(chain))}\ndatabase_url = {json.dumps(database)}\n{text}")
        return file

    files = {
        "facilitator": config("facilitator", f"port = {front}\n"),
        "miner": config(
            "miner", f'port = {mine}\n{wallet}wallet_name = "miner"\n[executors]\n"always_on.test" = 2\n'
        ),
        "validator": config(
            "validator",
            f'facilitator_url = "ws://127.0.0.1:{front}/ws/v0/"\n{wallet}wallet_name = "validator"\n',
        ),
    }
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, file in files.items():
            log = stack.enter_context((tmp_path / f"{name}.log").open("w"))
            process = subprocess.Popen([*HORDE, name, "--config", str(file)], stderr=log, env=dict(os.environ))
            processes[name] = process
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        yield {"keys": keys, "url": f"http://127.0.0.1:{front}", "processes": processes, "folder": tmp_path}


async def test_jobs_run_through_separate_processes(services: dict[str, Any], image: str) -> None:
    keys = services["keys"]
    async with ComputeHordeClient(
        keys["user"], keys["validator"].ss58_address, facilitator_url=services["url"]
    ) as client:
        job = await _once_up(client, image)
        await job.wait(60)
        assert job.status is ComputeHordeJobStatus.COMPLETED, job.error
        assert job.result.stdout == "hello\n"
        jobs = [await client.create_job("always_on.test", "SN0", image, ["true"]) for _ in range(2)]
        await asyncio.gather(*(each.wait(60) for each in jobs))
        assert [each.status.value for each in jobs] == ["completed", "completed"]
    for name, process in services["processes"].items():
        assert process.poll() is None, (services["folder"] / f"{name}.log").read_text()[-2000:]


async def _once_up(client: ComputeHordeClient, image: str) -> Any:
    """The first job, as soon as the front door is open and the validator has connected."""
    for _ in range(300):
        try:
            return await client.create_job("always_on.test", "SN0", image, ["echo", "hello"])
        except ComputeHordeError:
            await asyncio.sleep(0.1)
    raise AssertionError("the services did not come up within 30 s")


def test_an_executor_by_hand_needs_a_token() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compute_horde.cli", "executor"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--token" in done.stderr

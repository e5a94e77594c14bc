"""A miner's health and metrics on a port of their own."""

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from compute_horde.chain.port import Directory
from compute_horde.chain.static import FixedChain
from compute_horde.miner.launcher import FakeLauncher
from compute_horde.miner.service import MinerService
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.testing import MINER, TEST


def make(folder: Path, **changes: Any) -> MinerService:
    url = f"sqlite+aiosqlite:///{folder}/miner.db"
    settings = MinerSettings(
        **{"port": 0, "database_url": url, "executors": {TEST: 2}, "operations_port": 0, **changes}
    )
    return MinerService(settings, FixedChain(Directory()), FakeLauncher(), hotkey=MINER)


def main_url(miner: MinerService) -> str:
    return miner.url.replace("ws://", "http://")


async def test_operators_have_a_port_of_their_own(tmp_path: Path) -> None:
    miner = make(tmp_path)
    await miner.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{miner.operations.port}") as own:
            live, ready = await own.get("/health/live"), await own.get("/health/ready")
            metrics = await own.get("/metrics")
            assert (await own.get("/version")).status_code == 404
        async with httpx.AsyncClient(base_url=main_url(miner)) as main:
            assert (await main.get("/metrics")).status_code == 404  # strangers reach it
            assert (await main.get("/health/ready")).json()["status"] == "ok"
            assert (await main.get("/health/live")).json()["status"] == "ok"
    finally:
        await miner.stop()
    assert (live.status_code, ready.status_code) == (200, 200)
    assert ready.json()["checks"].keys() == {"started", "database"}
    assert 'compute_horde_miner_executors{executor_class="always_on.test",state="free"} 2.0' in metrics.text
    assert miner.operations.port is None


async def test_with_a_token_metrics_are_on_both_ports(tmp_path: Path) -> None:
    miner = make(tmp_path, operations_token="t0ken")
    await miner.start()
    try:
        for url in (main_url(miner), f"http://127.0.0.1:{miner.operations.port}"):
            async with httpx.AsyncClient(base_url=url) as http:
                assert (await http.get("/metrics")).status_code == 401
                answer = await http.get("/metrics", headers={"Authorization": "Bearer t0ken"})
                assert answer.status_code == 200
    finally:
        await miner.stop()


async def test_a_taken_port_stops_the_start_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="cannot listen"):
            await make(tmp_path, operations_port=port).start()
    miner = make(tmp_path, operations_port=port)
    await miner.start()
    assert miner.operations.port == port
    await miner.stop()

"""A facilitator's health and metrics on a port of their own."""

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from compute_horde.chain.port import Directory
from compute_horde.chain.static import FixedChain
from compute_horde.facilitator.service import FacilitatorService
from compute_horde.facilitator.settings import FacilitatorSettings


def make(folder: Path, **changes: Any) -> FacilitatorService:
    url = f"sqlite+aiosqlite:///{folder}/facilitator.db"
    settings = FacilitatorSettings(**{"port": 0, "database_url": url, "operations_port": 0, **changes})
    return FacilitatorService(settings, FixedChain(Directory()))


async def test_operators_have_a_port_of_their_own(tmp_path: Path) -> None:
    service = make(tmp_path)
    await service.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.operations.port}") as own:
            live, ready = await own.get("/health/live"), await own.get("/health/ready")
            metrics = await own.get("/metrics")
            assert (await own.get("/auth/nonce")).status_code == 404
        async with httpx.AsyncClient(base_url=service.url) as main:
            assert (await main.get("/metrics")).status_code == 404  # strangers reach it
            assert (await main.get("/health/ready")).json().keys() == ready.json().keys()
    finally:
        await service.stop()
    assert (live.json()["checks"].keys(), ready.json()["checks"].keys()) == ({"tasks"}, {"database"})
    assert "compute_horde_facilitator_database_bytes" in metrics.text
    assert service.operations.port is None


async def test_with_a_token_metrics_are_on_both_ports(tmp_path: Path) -> None:
    service = make(tmp_path, operations_token="t0ken")
    await service.start()
    try:
        for url in (service.url, f"http://127.0.0.1:{service.operations.port}"):
            async with httpx.AsyncClient(base_url=url) as http:
                assert (await http.get("/metrics")).status_code == 401
                answer = await http.get("/metrics", headers={"Authorization": "Bearer t0ken"})
                assert answer.status_code == 200
    finally:
        await service.stop()


async def test_a_taken_port_stops_the_start_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="cannot listen"):
            await make(tmp_path, operations_port=port).start()
    service = make(tmp_path, operations_port=port)
    await service.start()
    assert service.operations.port == port
    await service.stop()

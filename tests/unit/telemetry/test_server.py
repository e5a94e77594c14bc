"""Health and metrics over HTTP, without a socket."""

import socket

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from pydantic import SecretStr

from compute_horde.telemetry.health import Health, NotReady
from compute_horde.telemetry.metrics import ServiceMetrics
from compute_horde.telemetry.miner import MinerMetrics
from compute_horde.telemetry.server import Operations, operations_app


async def bad() -> None:
    raise NotReady("no engine")


def app(health: Health, token: str | None = None) -> AsyncTestClient[Litestar]:
    return AsyncTestClient(operations_app(health, MinerMetrics(), SecretStr(token) if token else None))


async def test_health_is_a_status_and_a_word() -> None:
    async with app(Health({"engine": bad})) as client:
        live, ready = await client.get("/health/live"), await client.get("/health/ready")
    assert (live.status_code, live.json()) == (200, {"status": "ok", "checks": {}})
    assert (ready.status_code, ready.json()["checks"]["engine"]["why"]) == (503, "no engine")
    assert ready.headers["cache-control"] == "no-store"


async def test_metrics_are_prometheus_text() -> None:
    async with app(Health({})) as client:
        shown = await client.get("/metrics")
    assert shown.status_code == 200
    assert shown.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "compute_horde_miner_build_info{" in shown.text


@pytest.mark.parametrize("sent", [None, "Bearer wrong", "t0ken", "Bearer täken"])
async def test_with_a_token_strangers_see_health_only(sent: str | None) -> None:
    headers = {b"Authorization": sent.encode()} if sent else {}
    async with app(Health({}), token="t0ken") as client:
        assert (await client.get("/health/live")).status_code == 200
        refused = await client.get("/metrics", headers=headers)
        allowed = await client.get("/metrics", headers={"Authorization": "Bearer t0ken"})
    assert (refused.status_code, refused.headers["www-authenticate"], refused.content) == (401, "Bearer", b"")
    assert allowed.status_code == 200


async def test_there_is_nothing_else() -> None:
    async with app(Health({})) as client:
        assert (await client.get("/schema")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405


async def test_without_a_port_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)  # using it would fail
    server = Operations(Health({}), ServiceMetrics("miner"), host="127.0.0.1", port=None)
    await server.start()
    assert server.port is None
    await server.stop()

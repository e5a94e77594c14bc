"""Health and metrics on an address of their own."""

import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate
from compute_horde.storage.retention import by_key, database_bytes, purge, shrink
from compute_horde.telemetry.executor import ExecutorMetrics
from compute_horde.telemetry.health import Health, answers
from compute_horde.telemetry.server import Operations
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.validator.tables import incidents


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    await migrate(made, "validator")
    yield made
    await made.close()


async def test_it_is_scraped(database: Database) -> None:
    metrics = ValidatorMetrics()
    metrics.sample_database_bytes(lambda: database_bytes(database))
    operations = Operations(Health({"database": answers(database)}), metrics, host="127.0.0.1", port=0)
    await operations.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{operations.port}") as client:
            ready, shown = await client.get("/health/ready"), await client.get("/metrics")
    finally:
        await operations.stop()
        await operations.stop()
    assert ready.json()["checks"]["database"]["status"] == "ok"
    line = next(line for line in shown.text.splitlines() if line.startswith("compute_horde_validator_database_b"))
    assert float(line.split()[1]) > 10_000
    assert operations.port is None


async def test_old_rows_go_on_both_databases(database: Database) -> None:
    async with database.begin() as connection:
        rows = [{"miner_hotkey": "5M", "job_uuid": str(n), "code": "busy", "at": float(n)} for n in range(250)]
        await connection.execute(incidents.insert(), rows)
    assert await purge(database, *by_key(incidents.c.id, incidents.c.at < 240), pause_s=0) == 240
    async with database.read() as connection:
        assert len((await connection.execute(incidents.select())).all()) == 10
    assert await shrink(database) == 0


async def test_a_taken_address_is_an_error_unless_it_is_optional(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="cannot listen"):
            await Operations(Health({}), ExecutorMetrics(), host="127.0.0.1", port=port).start()
        quiet = Operations(Health({}), ExecutorMetrics(), host="127.0.0.1", port=port, optional=True)
        await quiet.start()
        assert quiet.port is None
        await quiet.stop()

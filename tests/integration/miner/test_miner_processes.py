"""Executors as processes, with a small stand-in for the executor (section 7.2)."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from compute_horde.miner.launcher import LaunchFailed
from compute_horde.miner.processes import ProcessLauncher
from compute_horde.miner.testing import TEST, until

STAND_IN = """
import json, pathlib, signal, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1], "ready").touch()
line = sys.stdin.readline()
if not line:
    sys.exit(0)
job = json.loads(line)
pathlib.Path(sys.argv[1], job["token"]).write_text(job["miner_url"])
if sys.argv[2] != "quick":
    time.sleep(60)
sys.exit(7)
"""


@contextlib.asynccontextmanager
async def launcher(folder: Path, manner: str = "quick") -> AsyncIterator[ProcessLauncher]:
    made = ProcessLauncher((sys.executable, "-c", STAND_IN, str(folder), manner), term_s=0.2)
    try:
        yield made
    finally:
        await made.close()


async def test_a_warm_executor_gets_its_job_and_is_replaced(tmp_path: Path) -> None:
    async with launcher(tmp_path) as processes:
        await processes.warm(TEST, 1)
        await until(lambda: processes.warm_count == 1)
        executor = await processes.launch("token-1", TEST, "ws://miner")
        assert await executor.wait() == 7
        assert (tmp_path / "token-1").read_text() == "ws://miner"
        await until(lambda: processes.warm_count == 1)
        await processes.warm(TEST, 0)
        await until(lambda: processes.warm_count == 0)


async def test_without_a_warm_one_an_executor_is_started(tmp_path: Path) -> None:
    async with launcher(tmp_path) as processes:
        executor = await processes.launch("token-2", TEST, "ws://miner")
        assert await executor.wait() == 7


async def test_a_deaf_executor_is_killed_hard(tmp_path: Path) -> None:
    async with launcher(tmp_path, "deaf") as processes:
        executor = await processes.launch("token-3", TEST, "ws://miner")
        await until((tmp_path / "token-3").exists)
        began = time.monotonic()
        await executor.kill()
        assert time.monotonic() - began >= 0.2
        assert await executor.wait() == -9
        await executor.kill()


async def test_closing_ends_the_warm_and_the_working(tmp_path: Path) -> None:
    async with launcher(tmp_path, "slow") as processes:
        await processes.warm(TEST, 1)
        executor = await processes.launch("token-4", TEST, "ws://miner")
    assert await executor.wait() == -15
    with pytest.raises(LaunchFailed):
        await processes.launch("token-5", TEST, "ws://miner")


async def test_a_dead_warm_executor_is_replaced(tmp_path: Path) -> None:
    counter = tmp_path / "starts"
    code = "import sys; open(sys.argv[1], 'a').write('x')"
    dying = ProcessLauncher((sys.executable, "-c", code, str(counter)))
    await dying.warm(TEST, 1)
    await until(lambda: counter.exists() and len(counter.read_text()) >= 2)
    await dying.close()


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    broken = ProcessLauncher((str(tmp_path / "missing"),))
    await broken.warm(TEST, 1)
    with pytest.raises(LaunchFailed, match="missing"):
        await broken.launch("token", TEST, "ws://miner")
    await asyncio.sleep(0)
    await broken.close()


def test_the_line_of_a_job_is_json() -> None:
    assert json.loads('{"miner_url": "ws://miner", "token": "t"}').keys() == {"miner_url", "token"}

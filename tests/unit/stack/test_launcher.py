"""Executors inside this process."""

import asyncio
from pathlib import Path

import pytest

from compute_horde.executor.fake import FakeContainer, FakeRuntime
from compute_horde.executor.fake_miner import FakeMiner
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.miner.pool import until_ended
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.stack import launcher as launchers
from compute_horde.stack.launcher import InProcessLauncher


def runs(engine: FakeRuntime) -> bool:
    return any(container.was_started for container in engine.containers.values())


async def test_an_executor_whose_engine_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clean-up waits for the engine; its place is not to wait for that."""
    miner, engine = FakeMiner(job={"docker_run_cmd": ["sleep", "60"]}), FakeRuntime()
    awake, removes = asyncio.Event(), FakeContainer.remove

    async def hanging(container: FakeContainer) -> None:
        await awake.wait()
        await removes(container)

    monkeypatch.setattr(FakeContainer, "remove", hanging)
    monkeypatch.setattr(launchers, "WebSocketDialer", lambda: miner.dialer)
    launcher = InProcessLauncher(ExecutorSettings(work_dir=tmp_path / "work"), engine)
    executor = await launcher.launch(miner.token, ExecutorClass.always_on__test, miner.url)
    async with asyncio.timeout(5):
        while "V0VolumesReadyRequest" not in miner.names() or not runs(engine):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)
        over = asyncio.get_running_loop().create_future()
        over.set_result(0.0)
        assert await until_ended(executor, over, kill_limit_s=0.05) is None
        awake.set()
        await launcher.close(kill=True)

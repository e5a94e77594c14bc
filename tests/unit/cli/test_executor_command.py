"""``horde executor``: what keeps it from working is told, to the operator and to the miner."""

import asyncio
import json
from pathlib import Path

import pytest
import typer

from compute_horde.cli import executor as command
from compute_horde.executor.errors import failure
from compute_horde.executor.fake import FakeRuntime
from compute_horde.executor.fake_miner import FakeMiner
from compute_horde.executor.runtime import EngineFacts
from compute_horde.executor.service import Executor
from compute_horde.executor.settings import ExecutorSettings


class Restarting(FakeRuntime):
    """An engine that is away for the first look."""

    looks = 0

    async def check(self) -> EngineFacts:
        self.looks += 1
        if self.looks == 1:
            raise failure("engine_unavailable", "The engine is away.")
        return await super().check()


async def test_a_worker_whose_engine_was_away_when_it_warmed_up_does_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miner, engine = FakeMiner(job={"docker_run_cmd": ["echo", "hello"]}), Restarting()

    async def order() -> bytes:
        return json.dumps({"miner_url": miner.url, "token": miner.token}).encode()

    monkeypatch.setattr(command, "_stdin_line", order)
    one = Executor(ExecutorSettings(work_dir=tmp_path / "work"), engine, miner.dialer)
    async with asyncio.timeout(5):
        await command._one_job(one, "", "", 5, warm=True)
    assert miner.last.docker_process_stdout == "hello\n"


async def test_a_work_folder_that_cannot_be_made_is_told_to_the_miner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miner = FakeMiner()

    async def order() -> bytes:
        return json.dumps({"miner_url": miner.url, "token": miner.token}).encode()

    monkeypatch.setattr(command, "_stdin_line", order)
    (tmp_path / "file").touch()
    one = Executor(ExecutorSettings(work_dir=tmp_path / "file" / "work"), FakeRuntime(), miner.dialer)
    async with asyncio.timeout(5):
        await command._one_job(one, "", "", 5, warm=True)
    assert miner.last.context["problem"]["code"] == "internal_error"


async def test_an_executor_that_fails_says_why_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "stop_event", asyncio.Event)
    settings = ExecutorSettings(work_dir=tmp_path / "work", docker_url="unix:///nowhere")
    with pytest.raises(typer.Exit) as ended:
        await command._execute(settings, "ws://miner", "../token", 1, warm=False)
    assert ended.value.exit_code == 1
    assert "token is not usable as a name" in "".join(capsys.readouterr())

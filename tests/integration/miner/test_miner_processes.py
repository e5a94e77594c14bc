"""Executors as processes, with a small stand-in for the executor (section 7.2)."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from compute_horde.miner.child import Child
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
        await made.close(kill=True)


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


async def test_closing_for_good_ends_the_warm_and_the_working(tmp_path: Path) -> None:
    async with launcher(tmp_path, "slow") as processes:
        await processes.warm(TEST, 1)
        executor = await processes.launch("token-4", TEST, "ws://miner")
        await processes.close(kill=True)
    assert await executor.wait() == -15
    with pytest.raises(LaunchFailed):
        await processes.launch("token-5", TEST, "ws://miner")


SHORT_LIVED_MINER = """
import asyncio, sys
from compute_horde.miner.processes import ProcessLauncher
from compute_horde.protocol.enums import ExecutorClass

async def main():
    processes = ProcessLauncher((sys.executable, "-c", sys.argv[1], sys.argv[2], "slow"), term_s=0.2)
    await processes.warm(ExecutorClass.always_on__test, 1)
    while processes.warm_count < 1:
        await asyncio.sleep(0.01)
    executor = await processes.launch("token", ExecutorClass.always_on__test, "ws://miner")
    print(executor.child.pid, flush=True)
    if sys.argv[3] == "killed":
        await asyncio.sleep(60)
    await processes.close()

asyncio.run(main()) if sys.argv[4] == "asyncio" else __import__("uvloop").run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_an_executor_at_work_outlives_its_miner_and_a_warm_one_does_not(
    tmp_path: Path, end: str, loop: str
) -> None:
    command = (sys.executable, "-c", SHORT_LIVED_MINER, STAND_IN, str(tmp_path), end, loop)
    miner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert miner.stdout is not None
    pid = int(miner.stdout.readline())
    try:
        wait_for((tmp_path / "token").exists)
        if end == "killed":
            miner.kill()
        assert miner.wait(30) == (-9 if end == "killed" else 0)
        wait_for(lambda: stand_ins_of(str(tmp_path)) == [pid])
    finally:
        os.kill(pid, signal.SIGKILL)
        miner.stdout.close()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def state_of(pid: int) -> str:
    """One letter; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def stand_ins_of(folder: str) -> list[int]:
    """The stand-ins that are alive, known by their folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and state_of(int(entry.name)) not in ("", "Z"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_text().split("\0")
                if words[1:3] == ["-c", STAND_IN] and folder in words:
                    found.append(int(entry.name))
    return found


async def test_what_is_let_go_of_is_watched_no_more(tmp_path: Path) -> None:
    child = Child((sys.executable, "-c", STAND_IN, str(tmp_path), "slow"))
    child.let_go()
    assert not child.alive
    child.let_go()
    with pytest.raises(BrokenPipeError):
        child.say(b"{}")
    os.kill(child.pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, child.pid, 0)


async def test_a_dead_warm_executor_is_replaced(tmp_path: Path) -> None:
    counter = tmp_path / "starts"
    code = "import sys; open(sys.argv[1], 'a').write('x')"
    dying = ProcessLauncher((sys.executable, "-c", code, str(counter)))
    await dying.warm(TEST, 1)
    await until(lambda: counter.exists() and len(counter.read_text()) >= 2)
    await dying.close(kill=True)


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    broken = ProcessLauncher((str(tmp_path / "missing"),))
    await broken.warm(TEST, 1)
    with pytest.raises(LaunchFailed, match="missing"):
        await broken.launch("token", TEST, "ws://miner")
    await asyncio.sleep(0)
    await broken.close()


def test_the_line_of_a_job_is_json() -> None:
    assert json.loads('{"miner_url": "ws://miner", "token": "t"}').keys() == {"miner_url", "token"}

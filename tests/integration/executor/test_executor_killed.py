"""Executor processes killed at each stage of a job in a real container, and the next one with the same token."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from litestar import Litestar, WebSocket
from litestar.handlers import websocket
from tests.integration.conftest import docker

from compute_horde.executor import DockerRuntime, Executor, ExecutorSettings
from compute_horde.executor.fake_miner import FakeMiner
from compute_horde.executor.runtime import ContainerSpec
from compute_horde.executor.state import KEEP_SECONDS, load_state, save
from compute_horde.protocol.extensions import announcement
from compute_horde.transport.served import ServedChannel, serving

if TYPE_CHECKING:
    from tests.integration.conftest import HttpServer

pytestmark = pytest.mark.engine

HAPPY = ["V0ExecutorReadyRequest", "V0VolumesReadyRequest", "V0ExecutionDoneRequest", "V0JobFinishedRequest"]
SCRIPT = """
echo ran >> /volume/ran
for n in 1 2 3 4 5; do echo "out $n"; echo "err $n" >&2; sleep 0.2; done
cp /volume/file /output/file; cat /volume/ran
"""
HELD = SCRIPT.replace("cp", "while [ ! -e /volume/end ]; do sleep 0.05; done; cp")
"""Ends when it is let: however slow this machine is, the container runs until an executor has been killed."""

OUT = "".join(f"out {n}\n" for n in range(1, 6)) + "ran\n"
ERR = "".join(f"err {n}\n" for n in range(1, 6))


class Held:
    """Answers of a web server that wait until they are let go, and tell that they do."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.set()
        self.go_on.wait(30)
        with contextlib.suppress(OSError):
            request.send_response(200)
            request.send_header("Content-Length", "5")
            request.end_headers()
            request.wfile.write(b"input")


class Site:
    """A miner's address, a job, and executor processes that are given its token."""

    def __init__(self, folder: Path, miner: FakeMiner, url: str) -> None:
        self.settings = ExecutorSettings(work_dir=folder / "work", memory_bytes=64 * 2**20)
        self.runtime = DockerRuntime(self.settings)
        self.miner, self._url = miner, url
        self.root, self.container = self.settings.folder / miner.token, ContainerSpec.name_of(miner.token)
        self._processes: list[subprocess.Popen[bytes]] = []

    def launch(self, **settings: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "compute_horde.cli", "executor"]
        environment = {
            **os.environ,
            "MINER_ADDRESS": self._url,
            "EXECUTOR_TOKEN": self.miner.token,
            "HORDE_EXECUTOR_WORK_DIR": str(self.settings.folder),
            "HORDE_EXECUTOR_MEMORY_BYTES": str(self.settings.memory_bytes),
            "HORDE_EXECUTOR_ALLOW_PRIVATE_NETWORKS": "true",
            **{f"HORDE_EXECUTOR_{name.upper()}": value for name, value in settings.items()},
        }
        self._processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return self._processes[-1]

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(true):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)

    async def kill(self, process: "subprocess.Popen[bytes]") -> None:
        process.kill()
        await asyncio.to_thread(process.wait, 10)

    async def ended(self, process: "subprocess.Popen[bytes]") -> Any:
        """The last message to this executor; it leaves nothing behind."""
        assert await asyncio.to_thread(process.wait, 60) == 0
        assert await self.runtime.remove_leftovers(frozenset) == 0, "a container was left behind"
        assert list(self.settings.folder.iterdir()) == [], "a folder was left behind"
        return self.miner.last

    async def printed(self, text: str, connection: int = 1) -> None:
        seen, position = "", 0
        await self.until(lambda: len(self.miner.connections) == connection)
        await self.miner.reached("V0VolumesReadyRequest")
        while text not in seen:
            answer = await self.miner.read(position)
            position, seen = answer.position, seen + "".join(piece.text for piece in answer.pieces)

    async def kill_container(self) -> None:
        """What an operator does."""
        await asyncio.to_thread(docker, "kill", self.container)

    def let_end(self) -> None:
        (self.root / "volume" / "end").touch()

    def whole(self, last: Any) -> None:
        assert self.miner.names() == HAPPY
        assert (last.docker_process_stdout, last.docker_process_stderr) == (OUT, ERR)
        assert (last.exit_status, last.timed_out, last.notices) == (0, False, None)

    async def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        await self.runtime.remove_leftovers(frozenset)
        await self.runtime.close()


@contextlib.asynccontextmanager
async def site(folder: Path, image: str, volume: Any, script: str = SCRIPT, **job: Any) -> AsyncIterator[Site]:
    chosen = {"docker_image": image, "docker_run_cmd": ["sh", "-c", script], **job}
    miner = FakeMiner({"docker_image": image, "volume": volume}, chosen)

    @websocket("/v0.1/executor_interface/{token:str}")
    async def accept(socket: "WebSocket[Any, Any, Any]") -> None:
        await socket.accept(headers=announcement())
        await miner._accept(str(socket.url), dict(socket.headers), ServedChannel(socket))

    async with serving(Litestar([accept], openapi_config=None)) as server:
        made = Site(folder, miner, f"ws://127.0.0.1:{server.port}")
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture
def volume(http_server: "HttpServer") -> Any:
    return {"volume_type": "single_file", "url": http_server.serve("/in", b"input"), "relative_path": "file"}


async def test_killed_in_a_download(tmp_path: Path, busybox_image: str, http_server: "HttpServer") -> None:
    held = http_server.routes["/held"] = Held()
    volume = {"volume_type": "single_file", "url": http_server.url("/held"), "relative_path": "file"}
    async with site(tmp_path, busybox_image, volume) as here:
        first = here.launch()
        await here.until(held.asked.is_set)
        await here.kill(first)
        second = here.launch()
        await here.until(lambda: len(http_server.received) == 2)
        held.go_on.set()
        here.whole(await here.ended(second))


@pytest.mark.parametrize("text", ["out 1", "err 4"])
async def test_killed_while_the_container_prints(
    tmp_path: Path, busybox_image: str, volume: Any, text: str
) -> None:
    async with site(tmp_path, busybox_image, volume, HELD) as here:
        first = here.launch()
        await here.printed(text)
        await here.kill(first)
        here.let_end()
        here.whole(await here.ended(here.launch()))


async def test_killed_three_times_and_ended_while_nobody_watched(
    tmp_path: Path, busybox_image: str, volume: Any
) -> None:
    async with site(tmp_path, busybox_image, volume, HELD) as here:
        for number, text in enumerate(("out 1", "out 2", "out 3"), start=1):
            process = here.launch()
            await here.printed(text, number)
            await here.kill(process)
        here.let_end()
        await asyncio.to_thread(docker, "wait", here.container)
        here.whole(await here.ended(here.launch()))


async def test_killed_in_an_upload(
    tmp_path: Path, busybox_image: str, volume: Any, http_server: "HttpServer"
) -> None:
    held = http_server.routes["/put"] = Held()
    upload = {"output_upload_type": "single_file_put", "url": http_server.url("/put"), "relative_path": "file"}
    async with site(tmp_path, busybox_image, volume, output_upload=upload) as here:
        first = here.launch()
        await here.until(held.asked.is_set)
        await here.kill(first)
        held.go_on.set()
        here.whole(await here.ended(here.launch()))
        assert [one.body for one in http_server.received if one.path == "/put"] == [b"input", b"input"]


@pytest.mark.parametrize("wait_s", [0.25, 0.4, 0.5, 0.6, 0.7, 0.8])
async def test_killed_at_some_moment_of_its_start(
    tmp_path: Path, busybox_image: str, volume: Any, wait_s: float
) -> None:
    async with site(tmp_path, busybox_image, volume) as here:
        first = here.launch()
        await here.until(lambda: here.miner.connections)
        await asyncio.sleep(wait_s - 0.25)
        await here.kill(first)
        here.whole(await here.ended(here.launch()))


async def test_a_container_removed_by_hand_never_runs_again(
    tmp_path: Path, busybox_image: str, volume: Any
) -> None:
    async with site(tmp_path, busybox_image, volume, HELD) as here:
        first = here.launch()
        await here.printed("out 1")
        await here.kill(first)
        await here.runtime.remove(here.container)
        last = await here.ended(here.launch())
        assert last.context["problem"]["code"] == "executor_disconnected"


@pytest.mark.parametrize("when", ["watched", "unwatched", "adopted"])
async def test_a_container_killed_by_an_operator_is_no_failure_of_the_job(
    tmp_path: Path, busybox_image: str, volume: Any, when: str
) -> None:
    async with site(tmp_path, busybox_image, volume, "echo begun; exec sleep 600") as here:
        last_one = first = here.launch()
        await here.printed("begun")
        if when != "watched":
            await here.kill(first)
        if when == "adopted":
            last_one = here.launch()
            await here.printed("begun", 2)
        await here.kill_container()
        if when == "unwatched":
            last_one = here.launch()
        last = await here.ended(last_one)
        assert (last.message_type, last.reason) == ("V0HordeFailedRequest", "executor_disconnected")
        found = last.context["problem"]
        assert (found["code"], found["fault"], found["retryable"]) == ("executor_disconnected", "miner", True)


async def test_a_cancelled_job_whose_executor_was_killed(tmp_path: Path, busybox_image: str, volume: Any) -> None:
    async with site(tmp_path, busybox_image, volume, "echo begun; exec sleep 600") as here:
        first = here.launch()
        await here.printed("begun")
        await here.kill(first)
        second = here.launch()
        await here.printed("begun", 2)
        await here.miner.cancel()
        last = await here.ended(second)
        assert (last.context["problem"]["code"], last.docker_process_stdout) == ("cancelled", "begun\n")


async def test_a_stand_by_takes_over_from_a_process_that_is_killed(
    tmp_path: Path, busybox_image: str, volume: Any
) -> None:
    async with site(tmp_path, busybox_image, volume, HELD) as here:
        first = here.launch()
        await here.printed("out 1")
        second = here.launch()
        await asyncio.sleep(1)
        assert second.poll() is None
        await here.kill(first)
        here.let_end()
        here.whole(await here.ended(second))


async def test_a_stopped_executor_leaves_nothing(tmp_path: Path, busybox_image: str, volume: Any) -> None:
    async with site(tmp_path, busybox_image, volume, "echo begun; exec sleep 600") as here:
        first = here.launch()
        await here.printed("begun")
        first.send_signal(signal.SIGTERM)
        await here.ended(first)


async def test_a_reboot_in_between(tmp_path: Path, busybox_image: str, volume: Any) -> None:
    async with site(tmp_path, busybox_image, volume, HELD) as here:
        first = here.launch()
        await here.printed("out 1")
        await here.kill(first)
        state = load_state(here.root)
        assert state is not None
        written = state.written.model_copy(update={"boot": "another"})
        save(here.root, state.model_copy(update={"written": written}), {})
        last = await here.ended(here.launch())
        assert last.context["problem"]["code"] == "executor_disconnected"
        assert "started anew" in last.message


async def test_leftovers_stay_for_their_time(tmp_path: Path, busybox_image: str, volume: Any) -> None:
    async with site(tmp_path, busybox_image, volume, HELD) as here:
        first = here.launch()
        await here.printed("out 1")
        await here.kill(first)
        state = load_state(here.root)
        assert state is not None
        assert state.keep_until > KEEP_SECONDS
        await _warm(here)
        assert here.root.exists()
        save(here.root, state.model_copy(update={"keep_until": 1}), {})
        await _warm(here)
        assert not here.root.exists()
        assert await here.runtime.remove_leftovers(frozenset) == 0


async def _warm(here: Site) -> None:
    """What the next executor does first, whatever its job."""
    await Executor(here.settings, here.runtime, here.miner.dialer).warm()

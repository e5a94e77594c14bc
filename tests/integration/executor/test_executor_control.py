"""Cancelling real containers, following what they print, and the evidence that they leave."""

import asyncio
import hashlib
import resource
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from compute_horde.executor import DockerRuntime, Executor, ExecutorSettings
from compute_horde.executor.fake_miner import FakeMiner
from compute_horde.protocol.control import LOGS_PIECE_CHARS, V0JobLogsResponse

if TYPE_CHECKING:
    from tests.integration.conftest import HttpServer

pytestmark = pytest.mark.engine

MIB = 2**20


class Case:
    """One job in a real container, and the miner's words to its executor."""

    def __init__(self, image: str, work_dir: Path, script: str, **initial: Any) -> None:
        self.settings = ExecutorSettings(
            work_dir=work_dir, memory_bytes=64 * MIB, pids_limit=64, allow_private_networks=True
        )
        self.runtime = DockerRuntime(self.settings)
        job = {"docker_image": image, "docker_run_cmd": ["sh", "-c", script]}
        self.miner = FakeMiner({"docker_image": image, **initial}, job)
        self._begin()

    def _begin(self) -> None:
        self._executor = Executor(self.settings, self.runtime, self.miner.dialer)
        self.running = asyncio.create_task(self._executor.run(self.miner.url, self.miner.token))

    async def change_hands(self) -> None:
        """Another executor goes on."""
        await self._executor.release()
        self._begin()
        while len(self.miner.connections) < 2:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)

    async def printed(self, text: str) -> V0JobLogsResponse:
        """Wait until this was printed."""
        await self.miner.reached("V0VolumesReadyRequest")
        position, seen = 0, ""
        while text not in seen:
            answer = await self.miner.read(position)
            position, seen = answer.position, seen + "".join(piece.text for piece in answer.pieces)
        return answer

    async def over(self) -> Any:
        """The last message; the engine has no container of the job any more, and no folder is left."""
        await self.running
        assert await self.runtime.remove_leftovers(frozenset) == 0, "a container was left behind"
        assert list(self.settings.folder.iterdir()) == [], "a folder was left behind"
        return self.miner.last

    async def cancelled(self) -> Any:
        last = await self.over()
        assert last.message_type == "V0JobFailedRequest", last
        assert last.context["problem"]["code"] == "cancelled"
        return last


Make = Callable[..., Case]


@pytest.fixture
async def make(busybox_image: str, tmp_path: Path) -> AsyncIterator[Make]:
    cases = list[Case]()

    def start(script: str, **initial: Any) -> Case:
        cases.append(Case(busybox_image, tmp_path / "work", script, **initial))
        return cases[-1]

    async with asyncio.timeout(90):
        yield start
    for case in cases:
        case.running.cancel()
        await asyncio.wait({case.running})
        await case.runtime.close()


async def test_a_sleeping_container_is_stopped_and_its_output_kept(make: Make) -> None:
    case = make("echo before; echo err >&2; exec sleep 600")
    await case.printed("before")
    began = time.monotonic()
    await case.miner.cancel()
    last = await case.cancelled()
    assert (last.docker_process_stdout, last.docker_process_stderr) == ("before\n", "err\n")
    assert time.monotonic() - began < 10


async def test_a_container_that_ends_at_sigterm_says_goodbye(make: Make) -> None:
    case = make("trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.1; done")
    await case.printed("ready")
    await case.miner.cancel()
    assert (await case.cancelled()).docker_process_stdout == "ready\nbye\n"


async def test_a_container_that_ignores_sigterm_is_killed(make: Make) -> None:
    case = make("trap '' TERM; echo ready; while true; do sleep 0.1; done")
    await case.printed("ready")
    began = time.monotonic()
    await case.miner.cancel()
    await case.miner.cancel()
    assert (await case.cancelled()).docker_process_stdout == "ready\n"
    assert time.monotonic() - began < 12


async def test_a_container_that_was_taken_over_is_stopped_at_its_limit(make: Make) -> None:
    timing = {
        "allowed_leeway": 0,
        "download_time_limit": 5,
        "execution_time_limit": 2,
        "upload_time_limit": 5,
    }
    case = make("echo begun; exec sleep 600", executor_timing=timing)
    await case.printed("begun")
    await case.change_hands()
    last = await case.over()
    assert last.message_type == "V0JobFinishedRequest", "our own stop is no kill from outside"
    assert (last.timed_out, last.docker_process_stdout) == (True, "begun\n")


async def test_a_container_that_was_taken_over_is_stopped_when_cancelled(make: Make) -> None:
    case = make("echo begun; trap 'echo bye; exit 3' TERM; while true; do sleep 0.1; done")
    await case.printed("begun")
    await case.change_hands()
    await case.printed("begun")
    await case.miner.cancel()
    assert (await case.cancelled()).docker_process_stdout == "begun\nbye\n"


async def test_output_comes_while_the_job_prints_slowly(make: Make) -> None:
    case = make("for n in 1 2 3; do echo line $n; sleep 0.5; done; echo end >&2")
    await case.miner.reached("V0VolumesReadyRequest")
    position, times, text = 0, list[float](), ""
    while True:
        answer = await case.miner.read(position)
        times.append(time.monotonic())
        position, text = answer.position, text + "".join(piece.text for piece in answer.pieces)
        if answer.state == "ended":
            break
    assert text == "line 1\nline 2\nline 3\nend\n"
    assert times[-1] - times[0] > 0.8, "the first lines came before the last were printed"
    last = await case.over()
    assert last.docker_process_stdout + last.docker_process_stderr == text


async def test_following_fifty_megabytes_slows_nothing_and_fills_nothing(make: Make) -> None:
    script = "yes 0123456789012345678901234567890123456789012345678 | head -c 50000000; echo end"

    async def took(follow: bool) -> float:
        case = make(script)
        await case.miner.reached("V0VolumesReadyRequest")
        began = time.monotonic()
        following = asyncio.create_task(drain(case.miner)) if follow else None
        await case.miner.reached("V0ExecutionDoneRequest")
        seconds = time.monotonic() - began
        assert (await case.over()).docker_process_stdout.endswith("end\n")
        if following is not None:
            following.cancel()
        return seconds

    got = list[int]()

    async def drain(miner: FakeMiner) -> None:
        position = 0
        while True:
            answer = await miner.read(position)
            got.append(sum(len(piece.text) for piece in answer.pieces))
            assert got[-1] <= LOGS_PIECE_CHARS
            position = answer.position

    alone = await took(follow=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    followed = await took(follow=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert got, "there was something to follow"
    assert sum(got) <= (followed + 5) * MIB, "at most about 1 MiB a second"
    assert grown < 40 * MIB, f"the peak of memory grew by {grown}"
    assert followed < 2 * alone + 2, f"alone {alone:.2f} s, followed {followed:.2f} s"


async def test_the_outputs_are_hashed_and_no_link_is_followed(make: Make) -> None:
    case = make(
        "cd /output; mkdir d; echo data > d/file; head -c 3000000 /dev/zero > big; "
        "ln -s /etc/passwd link; ln -s /etc folder; mkfifo fifo; ln big twin"
    )
    last = await case.over()
    zeros = hashlib.sha256(bytes(3_000_000)).hexdigest()
    assert last.output_hashes == {
        "big": zeros,
        "d/file": hashlib.sha256(b"data\n").hexdigest(),
        "twin": zeros,
    }
    assert last.image_digest == (await case.runtime.ensure_image(case.miner._job.docker_image)).id
    assert last.notices is None


@pytest.mark.parametrize("right", [True, False])
async def test_a_checksum_of_an_input(make: Make, http_server: "HttpServer", right: bool) -> None:
    url = http_server.serve("/in", b"the input")
    digest = hashlib.sha256(b"the input" if right else b"another").hexdigest()
    volume = {"volume_type": "single_file", "url": f"{url}#sha256={digest}", "relative_path": "in.txt"}
    last = await make("cat /volume/in.txt", volume=volume).over()
    assert [request.path for request in http_server.received] == ["/in"]
    if right:
        assert last.docker_process_stdout == "the input"
    else:
        assert last.context["problem"]["code"] == "download_checksum"

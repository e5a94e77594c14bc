"""What the tests of adoption share: a job whose executor dies, and the one that goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from compute_horde.executor import state as states
from compute_horde.executor.fake import FakeProcess, FakeRuntime
from compute_horde.executor.fake_miner import FakeMiner
from compute_horde.executor.mortal import Death, MortalRuntime
from compute_horde.executor.runtime import STDERR, ContainerRuntime
from compute_horde.executor.service import Executor
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.state import State
from compute_horde.executor.timing import Clocks
from compute_horde.protocol.validator_miner import ExecutorTiming
from compute_horde.telemetry.executor import ExecutorMetrics

HAPPY = ["V0ExecutorReadyRequest", "V0VolumesReadyRequest", "V0ExecutionDoneRequest", "V0JobFinishedRequest"]
FILE_INPUT = {"volume_type": "single_file", "url": "http://x/in", "relative_path": "file"}
UPLOAD = {"output_upload_type": "single_file_put", "url": "http://x/put", "relative_path": "file"}


class Time:
    """Clocks that a test moves on: both for the executor and for the engine."""

    def __init__(self) -> None:
        self.moved, self.boot, self.base = 0.0, "boot", Clocks()

    def elapsed(self) -> float:
        return self.base.elapsed() + self.moved

    def clocks(self) -> Clocks:
        return Clocks(self.elapsed, lambda: self.base.wall() + self.moved, lambda: self.boot, recheck_s=0.01)


class MessageDeath(FakeMiner):
    """A miner whose executor dies when it has said something."""

    death: Death | None = None

    async def _converse(self, channel: Any, received: list[Any]) -> None:
        class Watched:
            async def receive(_) -> str:  # noqa: N805 - beside the miner's self
                frame: str = await channel.receive()
                for name in HAPPY:
                    if f'"{name}"' in frame and self.death is not None:
                        self.death.seen(name)
                return frame

            send, close = channel.send, channel.close

        await super()._converse(Watched(), received)  # type: ignore[arg-type] # as much of a channel as is used


class Case:
    """One job: it loads a file, prints in two parts, and uploads what it wrote."""

    def __init__(self, folder: Path, **job: Any) -> None:
        self.settings = ExecutorSettings(work_dir=folder / "work")
        self.time = Time()
        self.runs = 0
        self.printing, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.uploaded: list[bytes] = []
        self.engine = FakeRuntime(programs={"work": self.work}, clock=self.time.elapsed)
        chosen = {"docker_run_cmd": ["work"], "output_upload": UPLOAD, **job}
        self.miner = MessageDeath({"volume": FILE_INPUT}, chosen)
        self.root = self.settings.folder / self.miner.token
        self.death: Death | None = None
        self.metrics: ExecutorMetrics | None = None

    async def work(self, process: FakeProcess) -> int:
        self.runs += 1
        await self.steady()
        assert (process.folder("/volume") / "file").read_text() == "input"
        process.print("one\n")
        process.print("err\n", STDERR)
        self.printing.set()
        if self.death is not None:
            self.death.seen("printing")
        await self.go_on.wait()
        await self.steady()
        process.print("two\n")
        (process.folder("/output") / "file").write_text("result")
        return 0

    async def steady(self) -> None:
        """Return when the folder is not being changed into what a dead executor leaves."""
        while self.death is not None and self.death.came.is_set():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)

    async def point(self, name: str) -> None:
        if self.death is not None:
            await self.death.point(name)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            await self.point("downloading")
            return httpx.Response(200, content=b"input")
        self.uploaded.append(await request.aread())
        await self.point("uploading")
        return httpx.Response(200)

    def executor(self, runtime: ContainerRuntime | None = None) -> Executor:
        def web() -> httpx.AsyncClient:
            return httpx.AsyncClient(transport=httpx.MockTransport(self.answer))

        engine, dialer, clocks = runtime or self.engine, self.miner.dialer, self.time.clocks()
        return Executor(self.settings, engine, dialer, web, clocks, self.metrics)

    def start(self, executor: Executor | None = None) -> "asyncio.Task[None]":
        return asyncio.create_task((executor or self.executor()).run(self.miner.url, self.miner.token))

    async def die(self, at: str) -> Death:
        """Run until the executor dies at that point."""
        death = self.death = self.miner.death = Death(at, self.engine, self.root)
        await death.take(self.start(self.executor(MortalRuntime(death))))
        self.death = self.miner.death = None
        return death

    async def finish(self) -> Any:
        """The last message to the executor that goes on, which leaves nothing behind."""
        await self.start()
        assert self.engine.containers == {}
        assert list(self.settings.folder.iterdir()) == []
        return self.miner.last

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)

    async def adopted(self) -> None:
        """Wait until the second executor has told how far the job is: it runs."""
        await self.until(lambda: len(self.miner.connections) == 2)
        await self.miner.reached("V0VolumesReadyRequest")

    def whole(self, last: Any) -> None:
        """The job's result is as if nothing had happened."""
        assert self.miner.names() == HAPPY
        assert (last.docker_process_stdout, last.docker_process_stderr) == ("one\ntwo\n", "err\n")
        assert (last.exit_status, last.timed_out, last.notices) == (0, False, None)
        assert self.runs == 1, "the container ran once"
        assert set(self.uploaded) == {b"result"}

    def failed(self, last: Any, code: str) -> Any:
        assert last.context["problem"]["code"] == code, last
        return last

    def state(self) -> State:
        found = states.load_state(self.root)
        assert found is not None
        return found

    def result_is_kept(self) -> bool:
        """Whether the last message is on the disk, and nothing else of the job is needed."""
        return self.state().over and not (self.root / "output").exists()

    def spoil(self, **changes: Any) -> None:
        """Change what the dead executor has saved."""
        states.save(self.root, self.state().model_copy(update=changes), {})


Made = Callable[..., Case]


async def cases(tmp_path: Path) -> AsyncIterator[Made]:
    """Makes cases, at most 20 s of them."""
    async with asyncio.timeout(4):
        yield lambda **job: Case(tmp_path, **job)


LIMITS = ExecutorTiming(allowed_leeway=5, download_time_limit=20, execution_time_limit=20, upload_time_limit=20)

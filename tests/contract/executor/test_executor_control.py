"""Cancelling a job and following its output, scenario by scenario: a fake miner, a fake engine."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from compute_horde.executor import volumes
from compute_horde.executor.errors import failure
from compute_horde.executor.evidence import Hashes, Hashing
from compute_horde.executor.fake import DIGEST, FakeProcess, FakeRuntime, Program
from compute_horde.executor.fake_miner import FakeMiner, initial_request
from compute_horde.executor.job import REPORT_SECONDS
from compute_horde.executor.link import MinerLink
from compute_horde.executor.runtime import STDERR, Image
from compute_horde.executor.service import Executor
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.lifecycle.deadlines import RunningDeadline
from compute_horde.protocol.compat.cancelled import CANCELLED_CODE
from compute_horde.protocol.control import LogPiece, V0CancelJobRequest, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.extensions import LINK_EXTENSIONS, Extension
from compute_horde.protocol.validator_miner import V0JobFailedRequest
from compute_horde.transport.channel import ChannelClosed

OTHER = "00000000-0000-4000-8000-000000000009"
UPLOAD = {"output_upload_type": "single_file_put", "url": "http://x/", "relative_path": "file"}
FILE_INPUT = {"volume_type": "single_file", "url": "http://x/in", "relative_path": "file"}


class Scene:
    """One executor at one job."""

    def __init__(
        self, folder: Path, miner: FakeMiner, runtime: FakeRuntime, answer: httpx.MockTransport | None
    ) -> None:
        self.settings = ExecutorSettings(work_dir=folder / "work")
        self.miner, self.runtime = miner, runtime
        executor = Executor(self.settings, runtime, miner.dialer, lambda: httpx.AsyncClient(transport=answer))
        self._running = asyncio.create_task(executor.run(miner.url, miner.token))

    async def over(self) -> Any:
        """The last message; nothing is left behind."""
        await self._running
        assert self.runtime.containers == {}
        assert list(self.settings.folder.iterdir()) == []
        return self.miner.last

    async def cancelled(self, stage: str) -> Any:
        last = await self.over()
        assert last.message_type == "V0JobFailedRequest", last
        found = last.context["problem"]
        assert (found["code"], found["fault"], last.stage) == (CANCELLED_CODE, "user", stage)
        return last


class Stage:
    """Makes scenes. The program ``talk`` prints, tells ``printing``, and sleeps on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.printing, self.go_on = asyncio.Event(), asyncio.Event()

    async def talk(self, process: FakeProcess) -> int:
        process.print("hé\n")
        process.print("oops\n", STDERR)
        self.printing.set()
        await self.go_on.wait()
        process.print("bye\n")
        return 0

    def scene(
        self,
        *,
        initial: Mapping[str, Any] | None = None,
        runtime: FakeRuntime | None = None,
        programs: Mapping[str, Program] | None = None,
        answer: Any = None,
        drop_after: tuple[str, ...] = (),
        extensions: frozenset[Extension] = LINK_EXTENSIONS,
        **job: Any,
    ) -> Scene:
        miner = FakeMiner(initial, {"docker_run_cmd": ["talk"], **job}, drop_after, extensions)
        runtime = runtime or FakeRuntime(programs={"talk": self.talk, **(programs or {})})
        return Scene(self._folder, miner, runtime, httpx.MockTransport(answer) if answer else None)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with asyncio.timeout(20):
        yield Stage(tmp_path)


async def test_the_handshake_tells_both(stage: Stage) -> None:
    stage.go_on.set()
    scene = stage.scene()
    await scene.over()
    assert scene.miner.announced == LINK_EXTENSIONS


# cancelling


class SlowEngine(FakeRuntime):
    """Pulls for ever; ``pulling`` tells."""

    pulling = asyncio.Event()

    async def ensure_image(self, ref: str) -> Image:
        self.pulling.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_cancelled_while_the_image_is_pulled(stage: Stage) -> None:
    engine = SlowEngine()
    scene = stage.scene(runtime=engine)
    await engine.pulling.wait()
    await scene.miner.cancel()
    last = await scene.cancelled("executor_startup")
    assert (last.docker_process_stdout, last.docker_process_stderr) == (None, None)


class Forgetful(FakeMiner):
    """Sends no job request."""

    async def _converse(self, channel: Any, received: list[Any]) -> None:
        self._job = initial_request(self.job_uuid)  # type: ignore[assignment] # a repetition, which is dropped
        await super()._converse(channel, received)


async def test_cancelled_before_the_job_request(tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        miner = Forgetful()
        scene = Scene(tmp_path, miner, FakeRuntime(), None)
        await miner.reached("V0ExecutorReadyRequest")
        await miner.cancel()
        await scene.cancelled("volume_download")


async def test_cancelled_during_a_download(stage: Stage) -> None:
    asked = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    scene = stage.scene(initial={"volume": FILE_INPUT}, answer=answer)
    await asked.wait()
    await scene.miner.cancel()
    await scene.cancelled("volume_download")


async def test_cancelled_while_it_runs_what_was_printed_is_kept(stage: Stage) -> None:
    scene = stage.scene()
    await stage.printing.wait()
    await scene.miner.cancel()
    await scene.miner.cancel()
    last = await scene.cancelled("execution")
    assert (last.docker_process_stdout, last.docker_process_stderr) == ("hé\n", "oops\n")
    assert scene.miner.names() == ["V0ExecutorReadyRequest", "V0VolumesReadyRequest", "V0JobFailedRequest"]


async def test_an_engine_that_fails_meanwhile_does_not_keep_the_job_from_its_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = stage.scene()
    await stage.printing.wait()
    (container,) = scene.runtime.containers.values()

    async def broken(grace_s: float) -> None:
        monkeypatch.undo()
        raise failure("engine_unavailable", "The engine is gone.")

    monkeypatch.setattr(container, "stop", broken)
    await scene.miner.cancel()
    assert (await scene.cancelled("execution")).docker_process_stdout == "hé\n"


async def test_cancelled_during_an_upload(stage: Stage) -> None:
    asked = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def write(process: FakeProcess) -> int:
        process.print("done\n")
        (process.folder("/output") / "file").write_text("result")
        return 0

    scene = stage.scene(programs={"write": write}, docker_run_cmd=["write"], output_upload=UPLOAD, answer=answer)
    await asked.wait()
    await scene.miner.cancel()
    assert (await scene.cancelled("result_upload")).docker_process_stdout == "done\n"


async def test_cancelled_after_the_end_nothing_changes(stage: Stage) -> None:
    stage.go_on.set()
    scene = stage.scene()
    await scene.miner.is_over.wait()
    with contextlib.suppress(ChannelClosed):
        await scene.miner.cancel()
    assert (await scene.over()).message_type == "V0JobFinishedRequest"


async def test_what_is_about_another_job_is_ignored(stage: Stage) -> None:
    scene = stage.scene()
    await stage.printing.wait()
    await scene.miner.say(V0CancelJobRequest(job_uuid=OTHER))
    await scene.miner.say(V0JobLogsRequest(job_uuid=OTHER, request_id="x", position=0))
    assert (await scene.miner.read(0)).position == 8
    stage.go_on.set()
    assert (await scene.over()).message_type == "V0JobFinishedRequest"
    assert len(scene.miner.logs) == 1


async def test_the_end_of_a_cancelled_job_is_repeated_on_a_new_connection(stage: Stage) -> None:
    scene = stage.scene(drop_after=("V0JobFailedRequest",))
    await stage.printing.wait()
    await scene.miner.cancel()
    await scene.cancelled("execution")
    assert len(scene.miner.connections) == 2


async def test_a_thread_at_work_is_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that still writes would bring back what is being removed."""
    began, ended = threading.Event(), threading.Event()

    def unzip(file: Any, folder: Path, limits: Any, stop: threading.Event) -> None:
        began.set()
        stop.wait(10)
        (folder / "late").write_text("late")
        ended.set()

    monkeypatch.setattr(volumes, "unzip", unzip)
    scene = stage.scene(initial={"volume": {"volume_type": "inline", "contents": ""}})
    await asyncio.to_thread(began.wait, 10)
    await scene.miner.cancel()
    await scene.cancelled("volume_download")
    assert ended.is_set()


# following


async def test_output_is_followed_to_its_end(stage: Stage) -> None:
    scene = stage.scene()
    await stage.printing.wait()
    first = await scene.miner.read(0)
    assert [(piece.stream, piece.offset, piece.text) for piece in first.pieces] == [
        ("stdout", 0, "hé\n"),
        ("stderr", 0, "oops\n"),
    ]
    assert first.state == "more"
    await scene.miner.ask(first.position, "tail")
    stage.go_on.set()
    await scene.over()
    (tail,) = scene.miner.logs[1:]
    assert (tail.state, [(piece.offset, piece.text) for piece in tail.pieces]) == ("ended", [(3, "bye\n")])


async def test_a_follower_that_came_before_the_container_gets_its_first_output(stage: Stage) -> None:
    engine_is_slow = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        await engine_is_slow.wait()
        return httpx.Response(200, content=b"input")

    scene = stage.scene(initial={"volume": FILE_INPUT}, answer=answer)
    await scene.miner.reached("V0ExecutorReadyRequest")
    reading = asyncio.create_task(scene.miner.read(0))
    await asyncio.sleep(0)
    engine_is_slow.set()
    assert (await reading).pieces[0].text == "hé\n"
    await scene.miner.cancel()
    await scene.cancelled("execution")


async def test_a_job_that_fails_before_it_prints_ends_its_followers(stage: Stage) -> None:
    held = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        await held.wait()
        return httpx.Response(404)

    scene = stage.scene(initial={"volume": FILE_INPUT}, answer=answer)
    await scene.miner.reached("V0ExecutorReadyRequest")
    await scene.miner.ask(0)
    await asyncio.sleep(0.01)
    held.set()
    assert (await scene.over()).context["problem"]["code"] == "download_http_error"
    assert [(one.state, one.pieces) for one in scene.miner.logs] == [("ended", [])]


async def test_a_miner_that_announced_nothing_is_sent_nothing(stage: Stage) -> None:
    scene = stage.scene(extensions=frozenset())
    await stage.printing.wait()
    await scene.miner.ask(0)
    await asyncio.sleep(0.05)
    stage.go_on.set()
    await scene.over()
    assert scene.miner.logs == []


async def test_answers_are_not_repeated_on_a_new_connection(stage: Stage) -> None:
    scene = stage.scene(drop_after=("V0ExecutionDoneRequest",))
    await stage.printing.wait()
    assert (await scene.miner.read(0)).position == 8
    await scene.miner.ask(8)
    stage.go_on.set()
    assert (await scene.over()).message_type == "V0JobFinishedRequest"
    assert len(scene.miner.connections) == 2
    assert len({one.request_id for one in scene.miner.logs}) == len(scene.miner.logs)


class Silent:
    """A source that never answers by itself."""

    def ask(self, request: V0JobLogsRequest) -> None: ...

    def drop(self) -> None: ...


def answer_of(job_uuid: str, name: str, text: str) -> V0JobLogsResponse:
    pieces = [LogPiece(stream="stdout", offset=0, text=text)]
    return V0JobLogsResponse(job_uuid=job_uuid, request_id=name, state="ended", position=9, pieces=pieces)


async def test_the_last_message_waits_for_few_answers_and_none_follows() -> None:
    async with asyncio.timeout(10):
        miner = FakeMiner()
        link = MinerLink(miner.dialer, miner.url, miner.token)
        link.follow(Silent())
        link.answer(answer_of(miner.job_uuid, "nobody is connected", "x"))
        await link.initial()
        for number in range(20):
            link.answer(answer_of(miner.job_uuid, str(number), "x" * 100_000))
        link.finish(V0JobFailedRequest(job_uuid=miner.job_uuid))
        link.answer(answer_of(miner.job_uuid, "late", "x"))
        await link.drained()
        assert [one.request_id for one in miner.logs] == ["15", "16", "17", "18", "19"]
        assert miner.names() == ["V0JobFailedRequest"]
        await link.close()


# evidence


async def test_the_result_names_the_image_and_the_outputs(stage: Stage) -> None:
    async def write(process: FakeProcess) -> int:
        (process.folder("/output") / "file").write_text("result")
        return 0

    last = await stage.scene(programs={"write": write}, docker_run_cmd=["write"]).over()
    assert last.image_digest == DIGEST
    assert last.output_hashes == {"file": "f6a214f7a5fcda0c2cee9660b7fc29f5649e3c68aad48e20e950137c98913a68"}


@pytest.mark.parametrize(("upload_s", "granted_s"), [(3600, 3600 - REPORT_SECONDS), (1, 0.5)])
async def test_hashing_leaves_time_for_the_result_to_arrive(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, upload_s: int, granted_s: float
) -> None:
    granted = list[float]()

    async def result(_hashing: Hashing, within_s: float) -> Hashes:
        granted.append(within_s)
        return Hashes({}, [])

    monkeypatch.setattr(Hashing, "result", result)
    timing = {
        "allowed_leeway": 0,
        "download_time_limit": 1,
        "execution_time_limit": 1,
        "upload_time_limit": upload_s,
    }
    monkeypatch.setattr(RunningDeadline, "remaining", lambda _deadline, _now: upload_s)
    await stage.scene(initial={"executor_timing": timing}, docker_run_cmd=["true"]).over()
    assert granted == [granted_s]


async def test_an_output_folder_that_the_job_made_unusable_is_its_own_failure(stage: Stage) -> None:
    async def spoil(process: FakeProcess) -> int:
        process.folder("/output").rmdir()
        return 0

    last = await stage.scene(programs={"spoil": spoil}, docker_run_cmd=["spoil"]).over()
    assert last.message_type == "V0JobFailedRequest"
    assert (last.context["problem"]["code"], last.context["problem"]["fault"]) == ("output_invalid", "user")

"""What an executor tells of itself: figures of what really happens, and whether it can do its work."""

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.executor.adoption import HAPPY, Case, MessageDeath

from compute_horde.executor import session, volumes
from compute_horde.executor.counting import Counting
from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.fake import FACTS, FakeProcess, FakeRuntime
from compute_horde.executor.operations import Watched
from compute_horde.executor.runtime import EngineFacts
from compute_horde.executor.send import Delivery, Sender
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.volumes import VolumeLoader
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.volumes import HuggingfaceVolume
from compute_horde.telemetry.executor import ExecutorMetrics

STAGES = ("executor_startup", "volume_download", "execution", "result_upload")
OTHER = "00000000-0000-4000-8000-000000000009"
INLINE_INPUT = {"volume_type": "inline", "contents": "no base64!"}


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(session, "LAST_WORDS_SECONDS", 0)
    made = Case(tmp_path)
    made.metrics = ExecutorMetrics()
    return made


def figure(metrics: ExecutorMetrics | None, name: str, **labels: str) -> float:
    """Zero where there is no such sample."""
    assert metrics is not None
    found = metrics.registry.get_sample_value(f"compute_horde_executor_{name}", labels)
    return 0.0 if found is None else found


def done(case: Case, executor_class: str = "always_on.test") -> list[str]:
    """The stages that were counted."""
    label = {"executor_class": executor_class}
    return [name for name in STAGES if figure(case.metrics, "stage_duration_seconds_count", stage=name, **label)]


async def watched_from_now_on(case: Case, at: str) -> None:
    """An executor nobody watched dies there."""
    metrics, case.metrics = case.metrics, None
    await case.die(at)
    case.metrics = metrics


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not is_true():  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0.001)


async def test_a_job_is_counted_where_it_goes_and_where_it_ends(case: Case) -> None:
    case.whole(await case.finish())
    assert done(case) == list(STAGES)
    assert figure(case.metrics, "jobs_ended_total", state="completed", fault="none") == 1
    assert figure(case.metrics, "transferred_bytes_total", direction="down") == len(b"input")
    assert figure(case.metrics, "transferred_bytes_total", direction="up") == len(b"result")
    assert case.metrics is not None
    shown = await case.metrics.render()
    for quiet in (b"events_refused_total{", b"reconnects_total{", b"adoptions_total{"):
        assert quiet not in shown


async def test_stages_last_as_long_as_they_last(case: Case) -> None:
    async def work(process: FakeProcess) -> int:
        case.time.moved += 7
        return await case.work(process)

    case.engine.programs = {"work": work}
    await case.finish()

    def seconds(stage: str) -> float:
        return figure(case.metrics, "stage_duration_seconds_sum", stage=stage, executor_class="always_on.test")

    assert 7 <= seconds("execution") < 9
    assert all(seconds(stage) < 2 for stage in STAGES if stage != "execution")


async def test_a_job_is_counted_under_its_class(case: Case) -> None:
    gpu = ExecutorClass.spin_up_4min__gpu_24gb
    case.miner._initial = case.miner._initial.model_copy(update={"executor_class": gpu})
    await case.finish()
    assert done(case, gpu.value) == list(STAGES)
    assert done(case) == []


@pytest.mark.parametrize(
    ("changes", "state", "fault", "stages"),
    [
        ({"docker_run_cmd": ["false"]}, "failed", "user", 2),
        ({"volume": INLINE_INPUT}, "failed", "user", 1),
        ({"docker_image": "unknown"}, "failed", "user", 1),
        ({"job_uuid": OTHER}, "horde_failed", "miner", 1),
    ],
)
async def test_a_job_that_fails_is_counted_by_whose_fault_it_was(
    tmp_path: Path, changes: Any, state: str, fault: str, stages: int
) -> None:
    case = Case(tmp_path, **changes)
    case.miner._initial = case.miner._initial.model_copy(update={"docker_image": None, "volume": None})
    case.metrics = ExecutorMetrics()
    last = await case.finish()
    assert figure(case.metrics, "jobs_ended_total", state=state, fault=fault) == 1, last
    assert done(case) == list(STAGES[:stages]), "a stage that fails is not done"


async def test_a_job_that_is_cancelled_is_counted_as_cancelled(case: Case) -> None:
    case.go_on.clear()
    running = case.start()
    await case.printing.wait()
    await case.miner.cancel()
    await running
    assert figure(case.metrics, "jobs_ended_total", state="cancelled", fault="user") == 1
    assert done(case) == ["executor_startup", "volume_download"]


async def test_only_an_upload_that_was_taken_is_counted_and_it_once(tmp_path: Path) -> None:
    answers, counted = [500, 200, 404], list[int]()

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        return httpx.Response(answers.pop(0))

    (tmp_path / "file").write_bytes(b"result")
    with (tmp_path / "file").open("rb") as file:
        delivery = Delivery("http://x/put", file, "file", None, {})
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            sender = Sender(client, (0.0, 0.0), counted.append)
            await sender.send(delivery)
            with pytest.raises(JobFailure):
                await sender.send(delivery)
    assert counted == [len(b"result")]


async def test_what_a_snapshot_has_brought_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(volume: Any, folder: Path, token: Any) -> None:
        (folder / "model").write_bytes(bytes(10_000))

    monkeypatch.setattr(volumes, "load_snapshot", load)
    metrics = ExecutorMetrics()
    settings = ExecutorSettings(work_dir=tmp_path)
    async with httpx.AsyncClient() as client:
        loader = VolumeLoader(settings, client, tmp_path, tmp_path, Counting(metrics))
        await loader.load(HuggingfaceVolume(repo_id="org/model"))
    assert 10_000 <= figure(metrics, "transferred_bytes_total", direction="down") < 30_000


# jobs of dead executors


@pytest.mark.parametrize(
    ("point", "outcome", "stages"),
    [
        ("downloading", "resumed", ["execution", "result_upload"]),
        ("printing", "taken_over", ["result_upload"]),
        ("uploading", "taken_over", []),
        (HAPPY[-1], "resumed", []),
    ],
)
async def test_the_job_of_a_dead_executor_is_counted_by_what_was_found(
    case: Case, point: str, outcome: str, stages: list[str]
) -> None:
    await watched_from_now_on(case, point)
    case.whole(await case.finish())
    assert figure(case.metrics, "adoptions_total", outcome=outcome) == 1
    assert adoptions(case) == 1
    assert done(case) == stages, "nobody knows when the dead one began the others"


def adoptions(case: Case) -> float:
    outcomes = ("resumed", "taken_over", "lost", "standby")
    return sum(figure(case.metrics, "adoptions_total", outcome=name) for name in outcomes)


async def test_a_container_that_is_gone_is_counted_as_lost(case: Case) -> None:
    await watched_from_now_on(case, "printing")
    case.engine.containers.clear()
    await case.finish()
    assert (figure(case.metrics, "adoptions_total", outcome="lost"), adoptions(case)) == (1, 1)
    assert figure(case.metrics, "jobs_ended_total", state="horde_failed", fault="miner") == 1


async def test_a_reboot_is_counted_as_a_loss(case: Case) -> None:
    await watched_from_now_on(case, "printing")
    case.time.boot = "another"
    await case.finish()
    assert (figure(case.metrics, "adoptions_total", outcome="lost"), adoptions(case)) == (1, 1)


async def test_a_stand_by_that_was_not_needed_is_counted(case: Case) -> None:
    case.go_on.clear()
    metrics, case.metrics = case.metrics, None
    first = case.start()
    await case.printing.wait()
    case.metrics = metrics
    second = case.start()
    await asyncio.sleep(0.01)
    case.go_on.set()
    await first
    await second
    assert (figure(case.metrics, "adoptions_total", outcome="standby"), adoptions(case)) == (1, 1)
    assert done(case) == []


# the miner


async def test_a_miner_that_comes_back_is_counted(case: Case) -> None:
    case.miner = MessageDeath(
        {"volume": case.miner._initial.volume}, {"docker_run_cmd": ["work"]}, ("V0VolumesReadyRequest",)
    )
    await case.start()
    assert figure(case.metrics, "reconnects_total", peer="miner") == 1


async def test_what_is_not_acted_upon_is_counted_by_its_reason(case: Case) -> None:
    case.go_on.clear()
    running = case.start()
    await case.printing.wait()
    assert case.miner._channel is not None
    await case.miner._channel.send("{}")
    await case.miner.say(V0CancelJobRequest(job_uuid=OTHER))
    for reason in ("malformed", "not_ours"):
        await until(functools.partial(figure, case.metrics, "events_refused_total", reason=reason))
    case.go_on.set()
    await running
    for reason in ("malformed", "not_ours"):
        assert figure(case.metrics, "events_refused_total", reason=reason) == 1


async def test_records_name_the_job_and_the_miner(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    await case.die("printing")
    case.whole(await case.finish())
    taken = next(line for line in capsys.readouterr().out.splitlines() if "took over a job's container" in line)
    assert f"job={case.miner.job_uuid}" in taken
    assert f"peer={case.miner.url}" in taken


# the machine


class Engine(FakeRuntime):
    """Counts the looks at it; fails with ``problem`` while it has one."""

    looks, problem = 0, ""

    async def check(self) -> EngineFacts:
        self.looks += 1
        if self.problem:
            raise failure(self.problem, "unix:///secret/docker.sock does not answer")
        return FACTS


@pytest.fixture
def settings(tmp_path: Path) -> ExecutorSettings:
    return ExecutorSettings(work_dir=tmp_path / "not" / "made yet")


async def test_the_free_disk_is_told(settings: ExecutorSettings, tmp_path: Path) -> None:
    watched = Watched(settings, Engine())
    await watched.metrics.render()
    assert figure(watched.metrics, "disk_free_bytes") > 2**20
    settings.folder.mkdir(parents=True)
    await watched.metrics._refresh()
    assert figure(watched.metrics, "disk_free_bytes") > 2**20


async def test_it_is_ready_while_the_engine_answers(settings: ExecutorSettings) -> None:
    engine = Engine()
    watched = Watched(settings, engine)
    engine.problem = "engine_unavailable"
    report = await watched.health.ready()
    assert (report.http_status, report.checks["engine"].why) == (503, "the container engine does not answer")
    assert (await watched.health.live()).ok
    engine.problem = "sandbox_unsafe"
    assert (await watched.health.ready()).checks["engine"].why == (
        "the container engine cannot keep jobs within limits"
    )
    engine.problem = ""
    assert (await watched.health.ready()).ok
    looks, engine.problem = engine.looks, "engine_unavailable"
    assert (await watched.health.ready()).ok, "a good answer holds for a while"
    assert engine.looks == looks


async def test_it_is_not_ready_when_the_disk_is_nearly_full(settings: ExecutorSettings) -> None:
    watched = Watched(settings.model_copy(update={"disk_reserve_bytes": 2**62}), Engine())
    report = await watched.health.ready()
    assert (report.http_status, report.checks["disk"].why) == (503, "the disk is nearly full")
    assert report.checks["engine"].why == ""


async def test_nothing_listens_without_a_port(settings: ExecutorSettings) -> None:
    watched = Watched(settings, Engine())
    await watched.operations.start()
    assert watched.operations.port is None
    await watched.operations.stop()

"""An engine that goes away and comes back, and containers that are killed from outside."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.executor.adoption import HAPPY, Case

from compute_horde.executor import execution, patience, session
from compute_horde.executor.errors import failure
from compute_horde.executor.fake import FakeContainer, FakeProcess, FakeRuntime
from compute_horde.executor.runtime import EngineFacts, Image, Sink
from compute_horde.protocol.enums import Fault, JobStatus, Stage
from compute_horde.protocol.problems import Problem, is_worth_another_attempt
from compute_horde.transport.memory import MemoryDialer


class Engine(FakeRuntime):
    """Does not answer while it is ``away``; ``asked`` counts how often somebody tried."""

    away, asked = False, 0

    def look(self) -> None:
        self.asked += 1
        if self.away:
            raise failure("engine_unavailable", "The executor's container engine does not answer.")

    async def check(self) -> EngineFacts:
        self.look()
        return await super().check()

    async def ensure_image(self, ref: str) -> Image:
        self.look()
        return await super().ensure_image(ref)

    async def resume(self, name: str, sink: Sink) -> FakeContainer | None:
        self.look()
        return await super().resume(name, sink)

    async def remove(self, name: str) -> None:
        self.look()
        await super().remove(name)


class EngineCase(Case):
    """Whose engine can go away."""

    def __init__(self, folder: Path, **job: Any) -> None:
        super().__init__(folder, **job)
        self.engine: Engine = Engine(programs={"work": self.work}, clock=self.time.elapsed)

    async def adopt(self, at: str) -> "asyncio.Task[None]":
        """The executor that goes on; it has found that the engine is away."""
        await self.die(at)
        self.engine.away, before = True, self.engine.asked
        running = self.start()
        await self.until(lambda: self.engine.asked > before + 2)
        return running

    @property
    def container(self) -> FakeContainer:
        (found,) = self.engine.containers.values()
        return found


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EngineCase]:
    monkeypatch.setattr(session, "LAST_WORDS_SECONDS", 0)
    monkeypatch.setattr(patience, "backoff", lambda **_: itertools.repeat(0.001))
    return lambda **job: EngineCase(tmp_path, **job)


Make = Callable[..., EngineCase]


# an engine that is away


async def test_a_new_job_does_not_wait_for_an_engine(make: Make) -> None:
    case = make()
    case.engine.away = True
    last = case.failed(await case.finish(), "engine_unavailable")
    assert last.message_type == "V0HordeFailedRequest"
    assert case.engine.asked == 1, "another miner gets it"


@pytest.mark.parametrize("point", ["image", "downloading", "printing", "ended", "uploading"])
async def test_a_job_under_way_waits_for_an_engine_that_is_started_anew(make: Make, point: str) -> None:
    case = make()
    running = await case.adopt(point)
    assert not running.done()
    case.engine.away = False
    await running
    case.whole(case.miner.last)
    assert case.engine.containers == {}
    assert list(case.settings.folder.iterdir()) == []


async def gone_at_the_take_over(case: EngineCase) -> "asyncio.Task[None]":
    """The engine is there when the executor that goes on starts, and away when it asks for the container."""
    await case.die("printing")
    real = case.engine.remove_leftovers

    async def leaves(alive: Any) -> int:
        case.engine.away = True
        return await real(alive)

    case.engine.remove_leftovers = leaves  # type: ignore[method-assign] # a moment between two questions
    running, before = case.start(), case.engine.asked
    await case.until(lambda: case.engine.asked > before + 3)
    assert not running.done()
    return running


async def test_an_engine_may_go_while_a_container_is_taken_over(make: Make) -> None:
    case = make()
    running = await gone_at_the_take_over(case)
    case.engine.away = False
    await running
    case.whole(case.miner.last)


async def test_cancelling_goes_on_looking_for_the_container_to_stop(make: Make) -> None:
    case = make()
    case.go_on.clear()
    running = await gone_at_the_take_over(case)
    await case.miner.cancel()
    before = case.engine.asked
    await case.until(lambda: case.engine.asked > before + 3)
    case.engine.away = False
    await running
    last = case.failed(case.miner.last, "cancelled")
    assert (last.docker_process_stdout, case.engine.containers) == ("one\n", {})


@pytest.mark.parametrize(("point", "left_s"), [("downloading", 25), ("printing", 45), ("uploading", 65)])
async def test_an_engine_that_stays_away_is_waited_for_until_the_stage_is_over(
    make: Make, point: str, left_s: float
) -> None:
    case = make()
    running = await case.adopt(point)
    case.time.moved += left_s - 2
    before = case.engine.asked
    await case.until(lambda: case.engine.asked > before + 2)
    assert not running.done(), "the stage is not over"
    case.time.moved += 30
    await running
    last = case.failed(case.miner.last, "engine_unavailable")
    assert last.message_type == "V0HordeFailedRequest"
    assert case.runs == (point != "downloading")


async def test_a_job_whose_stage_is_over_does_not_wait(make: Make) -> None:
    case = make()
    await case.die("printing")
    case.time.moved += 100
    case.engine.away, before = True, case.engine.asked
    await case.start()
    case.failed(case.miner.last, "engine_unavailable")
    assert case.engine.asked - before <= 2, "once for the job, once to remove its container"


async def test_cancelling_does_not_wait_for_the_engine(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_CANCEL_SECONDS", 0.02)
    case = make()
    case.go_on.clear()
    running = await case.adopt("printing")
    await case.until(lambda: len(case.miner.connections) == 2)
    await case.miner.cancel()
    await running
    case.failed(case.miner.last, "cancelled")
    assert list(case.settings.folder.iterdir()) == []
    assert case.engine.containers, "the next start removes it"


async def test_letting_go_does_not_wait_for_the_engine(make: Make) -> None:
    case = make()
    await case.die("printing")
    case.engine.away = True
    executor = case.executor()
    running = case.start(executor)
    await case.until(lambda: case.engine.asked > 5)
    await executor.release()
    assert running.done()
    case.engine.away = False
    case.whole(await case.finish())


async def test_stopping_does_not_wait_for_an_engine_that_hangs(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make()
    looking = asyncio.Event()

    async def hangs(_: object) -> EngineFacts:
        looking.set()
        await asyncio.Event().wait()
        raise AssertionError("it hangs")

    monkeypatch.setattr(Engine, "check", hangs)
    case.miner.dialer = MemoryDialer()  # nobody is there
    running = case.start()
    async with asyncio.timeout(2):
        await looking.wait()
        running.cancel()
        await asyncio.wait({running})
    assert running.cancelled()
    assert list(case.settings.folder.iterdir()) == []


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_container_that_an_engine_did_not_remove_is_removed_before_the_next_job(
    make: Make, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(session, "REMOVE_SECONDS", 0.05)
    first, second = make(), make()
    second.engine, executor = first.engine, first.executor()

    async def remove(_: FakeContainer) -> None:
        if hangs:
            await asyncio.Event().wait()
        raise failure("engine_unavailable", "The engine is away.")

    with monkeypatch.context() as patch:
        patch.setattr(FakeContainer, "remove", remove)
        async with asyncio.timeout(4):
            await executor.run(first.miner.url, first.miner.token)
    assert first.miner.names() == HAPPY
    assert first.engine.containers
    first.miner.dialer.serve("ws://second", second.miner._accept)
    async with asyncio.timeout(4):
        await executor.run("ws://second", second.miner.token)
    assert second.miner.names() == HAPPY
    assert first.engine.containers == {}


# a container that is killed from outside


def lost(case: Case, last: Any) -> None:
    """The job was lost through the miner: another attempt is worth it."""
    assert last.message_type == "V0HordeFailedRequest", last
    assert last.reason == "executor_disconnected"
    found = Problem.from_context(last.context, "")
    assert found is not None
    assert (found.code, found.fault, found.stage) == ("executor_disconnected", Fault.MINER, Stage.EXECUTION)
    assert is_worth_another_attempt(found, JobStatus.HORDE_FAILED)
    assert case.runs == 1


async def test_a_watched_container_that_is_killed_is_no_failure_of_the_job(make: Make) -> None:
    case = make()
    case.go_on.clear()
    running = case.start()
    await case.printing.wait()
    await case.container.kill_from_outside()
    await running
    lost(case, case.miner.last)


async def test_a_container_that_was_killed_while_nobody_watched(make: Make) -> None:
    case = make()
    case.go_on.clear()
    await case.die("printing")
    await case.container.kill_from_outside()
    lost(case, await case.finish())


async def test_a_container_that_is_killed_after_it_was_taken_over(make: Make) -> None:
    case = make()
    case.go_on.clear()
    await case.die("printing")
    running = case.start()
    await case.adopted()
    await case.container.kill_from_outside()
    await running
    lost(case, case.miner.last)


async def test_a_container_that_had_ended_cannot_be_killed(make: Make) -> None:
    case = make()
    await case.die("ended")
    await case.container.kill_from_outside()
    case.whole(await case.finish())


async def test_the_executors_own_stop_at_the_limit_is_no_kill_from_outside(make: Make) -> None:
    case = make(output_upload=None)
    case.go_on.clear()
    running = case.start()
    await case.printing.wait()
    for _ in range(20):  # until it is watched
        await asyncio.sleep(0)
    case.time.moved += 46
    await running
    assert (case.miner.last.timed_out, case.miner.last.exit_status) == (True, 143)


async def test_the_executors_own_stop_at_a_wish_to_cancel_is_no_kill_from_outside(make: Make) -> None:
    case = make()
    case.go_on.clear()
    running = case.start()
    await case.printing.wait()
    await case.miner.cancel()
    await running
    case.failed(case.miner.last, "cancelled")


async def test_a_job_that_kills_itself_has_failed_by_itself(make: Make) -> None:
    async def kill_itself(_: FakeProcess) -> int:
        return 137

    case = make()
    case.engine.programs = {"work": kill_itself}
    last = case.failed(await case.finish(), "nonzero_exit")
    assert (last.message_type, last.docker_process_exit_status) == ("V0JobFailedRequest", 137)

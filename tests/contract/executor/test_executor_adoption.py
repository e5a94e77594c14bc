"""An executor dies at any moment, and the next with the same token brings the job to the same end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.contract.executor.adoption import HAPPY, Case, Made, cases

from compute_horde.executor import journal, session
from compute_horde.executor import state as states
from compute_horde.executor.fake import FakeProcess
from compute_horde.executor.fake_miner import FakeMiner
from compute_horde.executor.folders import JobFolders
from compute_horde.executor.link import MinerLink
from compute_horde.executor.mortal import Death, MortalRuntime
from compute_horde.executor.runtime import STDERR
from compute_horde.executor.service import Executor
from compute_horde.executor.state import KEEP_SECONDS
from compute_horde.protocol.enums import Stage
from compute_horde.transport.memory import MemoryDialer

POINTS = [
    "image",
    "downloading",
    "created",
    "begun",
    "started",
    "printing",
    "ended",
    "uploading",
    "removed",
    *HAPPY,
]


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    monkeypatch.setattr(session, "LAST_WORDS_SECONDS", 0)
    async for made in cases(tmp_path):
        yield made


@pytest.mark.parametrize("point", POINTS)
async def test_the_same_end_wherever_it_died(make: Made, point: str) -> None:
    case = make()
    await case.die(point)
    case.whole(await case.finish())


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_same_end_whichever_state_was_saved_last(
    make: Made, monkeypatch: pytest.MonkeyPatch, number: int, moment: str
) -> None:
    case, saves, real = make(), 0, states.save
    death = case.death = Death("never", case.engine, case.root)

    def save(root: Path, state: Any, frames: Any) -> None:
        nonlocal saves
        saves += 1
        if death.came.is_set():
            return
        if moment == "after":
            real(root, state, frames)
        if saves == number or state.over:
            death.strike()
        elif moment == "before":
            real(root, state, frames)

    monkeypatch.setattr(states, "save", save)
    await death.take(case.start(case.executor(MortalRuntime(death))))
    case.death = None
    monkeypatch.setattr(states, "save", real)
    case.whole(await case.finish())


@pytest.mark.parametrize("first", ["downloading", "printing", "uploading"])
async def test_the_one_that_goes_on_dies_as_well(make: Made, first: str) -> None:
    case = make()
    case.go_on.clear()
    death = case.death = Death(first, case.engine, case.root)
    running = case.start(case.executor(MortalRuntime(death)))
    if first == "uploading":
        case.go_on.set()
    await death.take(running)
    death = case.death = Death("ended", case.engine, case.root)
    case.go_on.set()
    await death.take(case.start(case.executor(MortalRuntime(death))))
    case.death = None
    case.whole(await case.finish())


async def test_an_interrupted_download_is_emptied_and_done_anew(make: Made) -> None:
    case = make()
    await case.die("downloading")
    (case.root / "volume" / "half").write_text("half")
    seen = list[str]()

    async def look(process: FakeProcess) -> int:
        seen.extend(path.name for path in process.folder("/volume").iterdir())
        return await case.work(process)

    case.engine.programs = {"work": look}
    case.whole(await case.finish())
    assert seen == ["file"]


async def test_deadlines_go_on_where_they_were(make: Made) -> None:
    case = make()

    class Noted(Death):
        async def point(self, name: str) -> None:
            if name == "downloading":
                await case.until(lambda: case.state().stage is Stage.VOLUME_DOWNLOAD)
            await super().point(name)

    death = case.death = Noted("downloading", case.engine, case.root)
    await death.take(case.start(case.executor(MortalRuntime(death))))
    case.death = None
    states.save(case.root, case.state(), {"job": case.miner._job.to_frame()})
    case.time.moved += 26
    case.failed(await case.finish(), "download_timeout")
    assert case.runs == 0


async def test_a_container_that_outlived_its_limit_is_stopped(make: Made) -> None:
    case = make(output_upload=None)
    case.go_on.clear()
    await case.die("printing")
    case.time.moved += 21
    last = await case.finish()
    assert (last.timed_out, last.exit_status, last.docker_process_stdout) == (True, 143, "one\n")


async def test_a_container_that_ended_after_its_limit_has_timed_out(make: Made) -> None:
    case = make()
    case.go_on.clear()
    await case.die("printing")
    case.time.moved += 21
    case.go_on.set()
    (container,) = case.engine.containers.values()
    await container.wait()
    assert (await case.finish()).timed_out


async def test_a_container_that_is_watched_again_is_stopped_at_its_own_limit(make: Made) -> None:
    case = make(output_upload=None)
    case.go_on.clear()
    await case.die("printing")
    case.time.moved += 19.9
    assert (await case.finish()).timed_out


async def test_an_engine_whose_clock_was_set_does_not_stop_a_container(make: Made) -> None:
    case = make()
    case.go_on.clear()
    await case.die("printing")
    case.engine.clock = lambda: case.time.elapsed() + 1_000_000
    running = case.start()
    await case.adopted()
    await asyncio.sleep(0.02)
    case.go_on.set()
    await running
    case.whole(case.miner.last)


async def test_a_container_that_is_gone_never_runs_again(make: Made) -> None:
    case = make()
    await case.die("printing")
    case.engine.containers.clear()
    last = case.failed(await case.finish(), "executor_disconnected")
    assert (last.reason, last.context["problem"]["retryable"]) == ("executor_disconnected", True)
    assert case.runs == 1


async def test_after_a_reboot_nothing_runs_again(make: Made) -> None:
    case = make()
    await case.die("printing")
    case.time.boot = "another"
    case.failed(await case.finish(), "executor_disconnected")
    assert case.runs == 1


async def test_after_a_reboot_a_job_that_had_not_begun_goes_on(make: Made) -> None:
    case = make()
    await case.die("downloading")
    case.time.boot = "another"
    case.whole(await case.finish())


async def test_a_disk_that_was_wiped_runs_nothing_again(make: Made) -> None:
    """The miner hands out the full job before the executor is ready: it was ready once."""
    case = make()

    class Eager(FakeMiner):
        async def _converse(self, channel: Any, received: list[Any]) -> None:
            await channel.send(self._job.to_frame())
            await super()._converse(channel, received)

    case.miner = Eager(job={"docker_run_cmd": ["work"]})  # type: ignore[assignment] # has no points
    case.failed(await case.finish(), "executor_disconnected")
    assert case.runs == 0


async def test_a_container_that_has_run_though_nobody_noted_it_is_not_run_again(make: Made) -> None:
    case = make()
    await case.die("printing")
    case.spoil(begun=None)
    case.failed(await case.finish(), "executor_disconnected")
    assert case.runs == 1


async def test_a_disk_that_takes_no_state_starts_no_container(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    case, real = make(), states.save

    def full(root: Path, state: Any, frames: Any) -> None:
        if state.begun is not None:
            raise OSError(28, "No space left on device")
        real(root, state, frames)

    monkeypatch.setattr(states, "save", full)
    case.failed(await case.finish(), "internal_error")
    assert case.runs == 0


async def test_the_token_is_in_no_log(make: Made) -> None:
    case = make()
    with structlog.testing.capture_logs() as records:
        await case.die("printing")
        case.whole(await case.finish())
    assert any("took over" in record["event"] for record in records)
    assert not [record for record in records if case.miner.token in str(record)]


async def test_a_last_message_that_cannot_be_saved_is_delivered(make: Made, monkeypatch: Any) -> None:
    case, real = make(), states.save

    def full(root: Path, state: Any, frames: Any) -> None:
        if state.over:
            raise OSError(28, "No space left on device")
        real(root, state, frames)

    monkeypatch.setattr(states, "save", full)
    case.whole(await case.finish())


async def test_output_that_the_engine_may_have_dropped_is_noticed(make: Made) -> None:
    case = make()
    await case.die("ended")
    (container,) = case.engine.containers.values()
    container.may_be_cut = True
    (notice,) = (await case.finish()).notices
    assert "may be missing" in notice


async def test_followers_go_on_at_their_positions(make: Made) -> None:
    """The engine's log has the two streams in another order than they were read in."""
    case = make()
    case.go_on.clear()
    death = case.death = Death("never", case.engine, case.root)
    running = case.start(case.executor(MortalRuntime(death)))
    await case.printing.wait()
    before = await case.miner.read(0)
    death.strike()
    await death.take(running)
    case.death = None
    (container,) = case.engine.containers.values()
    container._printed.reverse()
    running = case.start()
    await case.adopted()
    again = await case.miner.read(0)
    assert (again.pieces, again.position) == (before.pieces, before.position)
    waiting = asyncio.create_task(case.miner.read(again.position))
    case.go_on.set()
    assert [piece.text for piece in (await waiting).pieces] == ["two\n"]
    await running
    case.whole(case.miner.last)


async def test_cancelling_an_adopted_job(make: Made) -> None:
    case = make()
    case.go_on.clear()
    await case.die("printing")
    running = case.start()
    await case.adopted()
    assert (await case.miner.read(0)).position == 8
    await case.miner.cancel()
    await running
    last = case.failed(case.miner.last, "cancelled")
    assert (last.docker_process_stdout, last.docker_process_stderr) == ("one\n", "err\n")
    assert case.engine.containers == {}


async def test_a_wish_to_cancel_outlives_the_executor(make: Made) -> None:
    case = make()
    case.go_on.clear()

    class Noted(Death):
        async def point(self, name: str) -> None:
            if name == "stopped":
                await case.until(lambda: case.state().cancelled)
            await super().point(name)

    death = case.death = Noted("stopped", case.engine, case.root)
    running = case.start(case.executor(MortalRuntime(death)))
    await case.printing.wait()
    await case.miner.cancel()
    await death.take(running)
    case.death = None
    assert case.state().cancelled
    last = case.failed(await case.finish(), "cancelled")
    assert (last.stage, last.docker_process_stdout) == ("execution", "one\n")


async def test_the_disk_is_watched_on(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compute_horde.executor.disk.INTERVAL_SECONDS", 0.01)
    case = make()
    case.go_on.clear()
    await case.die("printing")
    (container,) = case.engine.containers.values()
    container._process.written = 1 << 50
    case.failed(await case.finish(), "disk_full")


async def test_a_job_that_wrote_too_much_while_nobody_watched(make: Made) -> None:
    case = make()
    await case.die("ended")
    (container,) = case.engine.containers.values()
    container._process.written = 1 << 50
    case.failed(await case.finish(), "disk_full")


# the miner


async def test_a_token_that_is_turned_away_leaves_nothing(make: Made) -> None:
    case = make()
    case.go_on.clear()
    await case.die("printing")
    case.miner.refuses = True
    await case.start()
    assert case.engine.containers == {}
    assert list(case.settings.folder.iterdir()) == []


async def test_a_container_goes_on_while_the_miner_is_away(make: Made) -> None:
    case = make()
    case.go_on.clear()
    await case.die("printing")
    there, case.miner.dialer = case.miner.dialer, MemoryDialer()
    executor = case.executor()
    running = case.start(executor)
    case.time.moved += 15
    case.go_on.set()
    await case.until(lambda: bool(case.uploaded))
    case.time.moved += 60
    case.miner.dialer.serve(case.miner.url, case.miner._accept)
    await running
    assert there is not case.miner.dialer
    case.whole(case.miner.last)


async def test_a_result_is_offered_until_it_is_of_no_use_to_anybody(make: Made) -> None:
    case = make()
    await case.die("uploading")
    case.miner.dialer = MemoryDialer()
    running = case.start()
    await case.until(lambda: case.state().over)
    case.time.moved += KEEP_SECONDS + 400
    await running
    assert list(case.settings.folder.iterdir()) == []


async def test_a_stopped_executor_keeps_a_result_that_nobody_has(make: Made) -> None:
    case = make()
    await case.die("uploading")
    there, case.miner.dialer = case.miner.dialer, MemoryDialer()
    running = case.start()
    await case.until(case.result_is_kept)
    running.cancel()
    await asyncio.wait({running})
    assert sorted(path.name for path in case.root.iterdir()) == ["lock", "state.jsonl"]
    case.miner.dialer = there
    case.whole(await case.finish())


async def test_what_cannot_be_read_is_asked_of_the_miner(make: Made) -> None:
    case = make()
    case.go_on.clear()
    await case.die("printing")
    states.save(case.root, case.state(), {"initial": "{}", "job": ""})
    case.go_on.set()
    case.whole(await case.finish())


@pytest.mark.parametrize("text", ["", "{}", '{"state": {"version": 2}}', "half a li"])
async def test_a_state_that_cannot_be_read_is_none(make: Made, text: str) -> None:
    case = make()
    await case.die("downloading")
    (case.root / "state.jsonl").write_text(text)
    case.whole(await case.finish())


async def test_a_last_message_that_is_not_there_is_no_state(make: Made) -> None:
    case = make()
    await case.die("downloading")
    case.spoil(over=True)
    assert states.load(case.root, case.miner.token) is None
    assert states.load(case.root, "another") is None


# more than one executor


async def test_a_stand_by_waits_and_ends_with_the_other(make: Made) -> None:
    case = make()
    case.go_on.clear()
    first = case.start()
    await case.printing.wait()
    second = case.start()
    await asyncio.sleep(0.15)
    assert not second.done()
    case.go_on.set()
    await first
    await second
    assert len(case.miner.connections) == 1
    case.whole(case.miner.last)


async def test_a_stand_by_takes_over_from_the_one_that_lets_go(make: Made) -> None:
    case = make()
    case.go_on.clear()
    one = case.executor()
    first = case.start(one)
    await case.printing.wait()
    second = case.start()
    await asyncio.sleep(0.01)
    await one.release("another token")
    await one.release(case.miner.token)
    assert first.done()
    case.go_on.set()
    await second
    assert len(case.miner.connections) == 2
    case.whole(case.miner.last)


async def test_a_stand_by_can_be_let_go_of_and_stopped(make: Made) -> None:
    case = make()
    case.go_on.clear()
    first, other = case.start(), case.executor()
    await case.printing.wait()
    second, third = case.start(other), case.start()
    await asyncio.sleep(0.01)
    await other.release()
    await second
    third.cancel()
    await asyncio.wait({third})
    case.go_on.set()
    await first
    case.whole(case.miner.last)


@pytest.mark.parametrize("point", ["image", "downloading", "created", "begun", "printing", "uploading"])
async def test_letting_go_at_any_moment(make: Made, point: str) -> None:
    case = make()
    reached, held = asyncio.Event(), asyncio.Event()

    class Held(Death):
        async def point(self, name: str) -> None:
            if name == point:
                reached.set()
                await held.wait()

    case.death = Held("never", case.engine, case.root)
    executor = case.executor(MortalRuntime(case.death))
    running = case.start(executor)
    await (case.printing if point == "printing" else reached).wait()
    case.death = None
    letting_go = asyncio.create_task(executor.release())
    await asyncio.sleep(0)
    held.set()
    await letting_go
    await running
    case.whole(await case.finish())


async def test_letting_go_of_a_result_that_nobody_takes(make: Made) -> None:
    case = make()
    await case.die("uploading")
    there, case.miner.dialer = case.miner.dialer, MemoryDialer()
    executor = case.executor()
    running = case.start(executor)
    await case.until(lambda: case.state().over)
    await executor.release()
    await running
    case.miner.dialer = there
    case.whole(await case.finish())


# clean-up


async def test_what_may_be_taken_over_is_left_alone_for_its_time(make: Made) -> None:
    case = make()
    case.go_on.clear()
    await case.die("printing")
    await case.executor().warm()
    assert case.root.exists()
    assert len(case.engine.containers) == 1
    case.time.moved += 300 + 65 + KEEP_SECONDS + 1
    await case.executor().warm()
    assert case.engine.containers == {}
    assert list(case.settings.folder.iterdir()) == []


async def test_a_folder_that_a_clean_up_holds_for_a_moment_is_no_job_that_has_ended(make: Made) -> None:
    case = make()
    case.settings.folder.mkdir(mode=0o700)
    cleaner = JobFolders(case.settings.folder, case.miner.token)
    cleaner.create()
    running = case.start()
    await asyncio.sleep(0.05)
    cleaner.remove()
    await running
    case.whole(case.miner.last)


async def test_a_folder_of_somebody_else_is_told_to_the_miner(make: Made, tmp_path: Path) -> None:
    case = make()
    (tmp_path / "work").symlink_to(tmp_path)
    await case.start()
    case.failed(case.miner.last, "internal_error")


async def test_the_journal_says_nothing_before_it_has_begun(tmp_path: Path) -> None:
    made = journal.Journal(tmp_path, Case(tmp_path).time.clocks())
    made.note(cancelled=True)
    await made.saved()
    await made.settled()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs here


async def test_a_link_that_persists_finds_its_miner_later() -> None:
    miner = FakeMiner()
    dialer = MemoryDialer()
    link = MinerLink(dialer, miner.url, miner.token, redial_s=0)
    link.persist(float("inf"))
    await asyncio.sleep(0.01)
    dialer.serve(miner.url, miner._accept)
    assert (await link.initial()).job_uuid == miner.job_uuid
    await link.close()


async def test_both_streams_of_a_stderr_first_job(make: Made) -> None:
    async def backwards(process: FakeProcess) -> int:
        process.print("err\n", STDERR)
        return await case.work(process)

    case = make()
    case.engine.programs = {"work": backwards}
    await case.die("ended")
    assert (await case.finish()).docker_process_stderr == "err\nerr\n"


def test_the_executor_has_its_own_clocks_by_default(tmp_path: Path) -> None:
    case = Executor(Case(tmp_path).settings, Case(tmp_path).engine, MemoryDialer())
    assert case._clocks.boot() == case._clocks.boot()

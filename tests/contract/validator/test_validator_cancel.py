"""A job is cancelled: in every stage, with miners that know of it and with those that do not."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.compat.cancelled import without_disguise
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.enums import JobStatus, Participant
from compute_horde.protocol.extensions import LINK_EXTENSIONS, Extension, announced, announcement
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate
from compute_horde.protocol.problems import Problem
from compute_horde.transport.channel import DialledChannel
from compute_horde.validator.rows import Job
from compute_horde.validator.testing.scripted import MinerConnection, Script, job_request, running
from compute_horde.validator.testing.world import (
    JOB,
    MINER,
    OTHER,
    USER,
    WHOLE,
    World,
    accept,
    ending,
    finish,
    make_ready,
    never_accepts,
    never_answers,
    never_executes,
    result,
    silence,
    whole_job,
)

CANCEL = V0CancelJobRequest(job_uuid=JOB)
STOPPED = to_wire(
    problem("cancelled", "The job was cancelled"),
    JOB,
    reported_by=Participant.EXECUTOR,
    stdout="half\n",
    stderr="",
)
STAGES: dict[str, Callable[[MinerConnection], Awaitable[Any]]] = {
    "received": never_accepts,
    "accepted": accept,
    "executor_ready": make_ready,
    "volumes_ready": never_executes,
    "execution_done": never_answers,
}
LONG = {"execution_time_limit": 30, "download_time_limit": 30, "upload_time_limit": 30}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.limits["reservation_limit"] = 30
    return made


def cancelled(update: V0JobStatusUpdate) -> Problem:
    """What the facilitator was told: on the wire a failure, with our code."""
    assert update.status is JobStatus.FAILED
    assert without_disguise(update.status, update.metadata) is JobStatus.CANCELLED
    assert update.metadata is not None
    details = update.metadata.job_failure_details
    assert details is not None
    found = Problem.from_context(details.context, details.message)
    assert found is not None
    return found


async def unpaid(miner: MinerConnection) -> None:
    receipt = await miner.expect(vm.V0JobFinishedReceiptRequest)
    assert receipt.payload.score_str == "0.000000"


async def cancel_at(world: World, status: str = "executor_ready", **changes: Any) -> V0JobStatusUpdate:
    """Run a job, cancel it in this status, and answer with its end."""
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **(LONG | changes)))
        await world.facilitator.wait_for(JOB, status)
        if status == "received":
            async with asyncio.timeout(5):
                while not world.miners[0].seen[1:]:  # noqa: ASYNC110 - nothing else tells of it
                    await asyncio.sleep(0)
        await world.facilitator.push(CANCEL)
        await world.facilitator.push(CANCEL)
        update = await world.facilitator.wait_for(JOB, "failed")
        await world.facilitator.push(CANCEL)
        for miner in world.miners:
            await asyncio.wait_for(miner.idle.wait(), 5)
    assert not [error for miner in world.miners for error in miner.errors]
    assert world.facilitator.history(JOB).count("failed") == 1
    assert await world.incidents() == []
    return update


async def test_both_handshakes_say_what_the_validator_understands(world: World) -> None:
    async def script(miner: MinerConnection) -> None:
        assert announced(miner.headers) == LINK_EXTENSIONS
        await whole_job(miner)

    miner = world.miner(script)
    await world.run(status="completed")
    assert not miner.errors
    assert announced(world.facilitator.headers[0]) == LINK_EXTENSIONS


@pytest.mark.parametrize("stage", STAGES)
async def test_a_miner_that_can_stops_the_job_in_any_stage(world: World, stage: str) -> None:
    async def script(miner: MinerConnection) -> None:
        await STAGES[stage](miner)
        assert await miner.expect(V0CancelJobRequest) == CANCEL
        await miner.send(STOPPED)
        await unpaid(miner)

    world.miner(script)
    update = await cancel_at(world, stage)
    assert cancelled(update).details == {}
    assert update.metadata is not None
    assert update.metadata.job_failure_details is not None
    assert update.metadata.job_failure_details.docker_process_stdout == "half\n"
    assert world.facilitator.history(JOB) == [*WHOLE[: WHOLE.index(stage) + 1], "failed"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("extensions", [(), (Extension.LOGS,)], ids=["existing", "logs-only"])
async def test_a_miner_of_the_existing_network_is_left_alone_with_the_job(
    world: World, stage: str, extensions: tuple[Extension, ...]
) -> None:
    async def script(miner: MinerConnection) -> None:
        await STAGES[stage](miner)
        await unpaid(miner)

    world.miner(script, extensions=extensions)
    cancelled(await cancel_at(world, stage))


async def test_while_a_miner_is_dialled_the_job_ends_at_once_and_no_miner_is_asked(world: World) -> None:
    world.limits["miner_connect_limit"] = 30
    dialled = asyncio.Event()

    async def mute(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        dialled.set()
        await miner.expect(vm.V0InitialJobRequest)

    miner = world.miner(mute)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await asyncio.wait_for(dialled.wait(), 5)
        await world.facilitator.push(CANCEL)
        cancelled(await world.facilitator.wait_for(JOB, "failed"))
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert len(miner.seen) == 1
    assert await world.receipts() == []
    assert await world.incidents() == []


async def test_a_cancel_on_the_heels_of_its_job_is_not_lost(world: World) -> None:
    world.miner(silence)
    validator = world.validator(miner_connect_limit=30)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(V0CancelJobRequest(job_uuid=OTHER))  # unknown: nothing happens
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.push(CANCEL)
        cancelled(await world.facilitator.wait_for(JOB, "failed"))
    assert world.facilitator.history(JOB) == ["received", "failed"]
    assert world.facilitator.history(OTHER) == []


async def test_a_wish_between_the_choice_of_a_miner_and_the_first_request_asks_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never_asked(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.manifest()
        await miner.expect(V0CancelJobRequest)

    miner = world.miner(never_asked)
    validator = world.validator()
    assign = validator._journal.assign

    async def cancelled_meanwhile(*args: Any) -> Job:
        job = await assign(*args)
        await validator._live.cancel(JOB)
        return job

    monkeypatch.setattr(validator._journal, "assign", cancelled_meanwhile)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        cancelled(await world.facilitator.wait_for(JOB, "failed"))
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert len(miner.seen) == 1
    assert not miner.errors


async def test_a_miner_that_does_not_confirm_is_not_waited_for(world: World) -> None:
    async def stubborn(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.expect(V0CancelJobRequest)
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job))  # progress counts no more
        await unpaid(miner)

    world.limits["cancel_limit"] = 0.05
    world.miner(stubborn)
    assert "did not say in time" in cancelled(await cancel_at(world)).message
    assert world.facilitator.history(JOB) == [*WHOLE[:3], "failed"]


async def test_a_result_that_comes_first_wins(world: World) -> None:
    async def done(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.expect(V0CancelJobRequest)
        await finish(miner, job)

    miner = world.miner(done)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "executor_ready")
        await world.facilitator.push(CANCEL)
        await world.facilitator.wait_for(JOB, "completed")
        await world.facilitator.push(CANCEL)  # it has ended: nothing happens
        await world.facilitator.push(V0CancelJobRequest(job_uuid="x" * 10_000))
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert not miner.errors
    assert world.facilitator.history(JOB) == [*WHOLE[:3], "completed"]
    assert [m.payload.score_str for m in miner.seen if isinstance(m, vm.V0JobFinishedReceiptRequest)] == [
        "90.000000"
    ]


async def test_a_result_that_has_arrived_wins_against_a_cancel_of_the_existing_network_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), result(job))
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    world.miner(script, extensions=())
    validator = world.validator()
    advance = validator._journal.advance

    async def slow(job: Any, new: Any, **rest: Any) -> Job:
        after = await advance(job, new, **rest)
        if new.value == "volumes_ready":
            for _ in range(20):  # the result is in by now
                await asyncio.sleep(0)
            await validator._live.cancel(JOB)
        return after

    monkeypatch.setattr(validator._journal, "advance", slow)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "completed")


@pytest.mark.parametrize(
    "end",
    [
        to_wire(problem("executor_disconnected", "gone"), JOB, reported_by=Participant.MINER),
        to_wire(problem("nonzero_exit", "3"), JOB, reported_by=Participant.EXECUTOR, exit_status=3),
        vm.V0DeclineJobRequest(job_uuid=JOB),
    ],
    ids=["horde", "job", "decline"],
)
async def test_a_miner_that_fails_after_the_wish_is_not_blamed_and_the_job_is_cancelled(
    world: World, end: Any
) -> None:
    async def falls_over(miner: MinerConnection) -> None:
        await make_ready(miner)
        await miner.expect(V0CancelJobRequest)
        await miner.send(end)
        await unpaid(miner)

    world.miner(falls_over)
    found = cancelled(await cancel_at(world))
    assert found.details["instead_of"] in {"horde_failed", "failed", "rejected"}


def reached_again(extensions: bool) -> tuple[Script, Script]:
    """A miner that is told, is lost, comes back, and is told again, or has forgotten how to cancel."""

    async def lost(miner: MinerConnection) -> None:
        await never_accepts(miner)
        await miner.expect(V0CancelJobRequest)
        await miner.channel.close(1006)

    async def back(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        if extensions:
            await miner.expect(V0CancelJobRequest)
            await miner.send(STOPPED)
        await unpaid(miner)

    return lost, back


async def test_a_lost_miner_is_told_again_and_asked_nothing_else(world: World) -> None:
    world.miner(*reached_again(extensions=True))
    assert cancelled(await cancel_at(world, "received")).details == {}


async def test_a_miner_that_comes_back_without_knowing_how_to_cancel_is_left_alone(world: World) -> None:
    lost, back = reached_again(extensions=False)
    miner = world.miner(lost, back)

    async def accept_then_change(url: str, headers: Any, channel: Any) -> None:
        world.dialer.serve("ws://miner:8000/", miner.accept, announcement(()))
        await miner.accept(url, headers, channel)

    world.dialer.serve("ws://miner:8000/", accept_then_change, announcement())
    cancelled(await cancel_at(world, "received"))


async def test_a_miner_that_stays_away_is_given_up_after_the_limit(world: World) -> None:
    async def gone(miner: MinerConnection) -> None:
        await make_ready(miner)
        await miner.expect(V0CancelJobRequest)
        world.dialer.unplug("ws://miner:8000/")
        await miner.channel.close(1006)

    world.limits["cancel_limit"] = 0.05
    world.miner(gone)
    cancelled(await cancel_at(world))


async def test_a_cancelled_that_nobody_asked_for_is_the_miners_fault(world: World) -> None:
    world.miner(ending(STOPPED))
    update = await world.run(status="horde_failed")
    assert update.metadata is not None
    assert update.metadata.horde_failure_details is not None
    assert "nobody had asked for" in update.metadata.horde_failure_details.message
    assert await world.incidents() == [(MINER.ss58_address, "protocol_error")]


@pytest.mark.parametrize("knows", [True, False])
async def test_a_wish_outlives_a_restart(world: World, knows: bool) -> None:
    told = asyncio.Event()

    async def first(miner: MinerConnection) -> None:
        await make_ready(miner)
        await miner.expect(V0CancelJobRequest)
        told.set()
        await miner.expect(vm.V0JobRequest)  # the connection ends instead

    async def second(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        if knows:
            await miner.expect(V0CancelJobRequest)
            await miner.send(STOPPED)
        await unpaid(miner)

    miner = world.miner(first, second)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER, **LONG))
        await world.facilitator.wait_for(JOB, "executor_ready")
        await world.facilitator.push(CANCEL)
        await asyncio.wait_for(told.wait(), 5)
    await asyncio.wait_for(miner.idle.wait(), 5)
    if not knows:
        world.dialer.serve("ws://miner:8000/", miner.accept)
    async with running(world.validator()):
        update = await world.facilitator.wait_for(JOB, "failed")
        await asyncio.wait_for(miner.idle.wait(), 5)
    cancelled(update)
    assert not miner.errors
    assert await world.incidents() == []


async def test_a_wish_for_a_job_without_a_miner_outlives_a_restart(world: World) -> None:
    """The validator stops between keeping the wish and acting upon it."""
    world.limits["miner_connect_limit"] = 30
    miner = world.miner(silence)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "received")
        assert await validator._store.request_cancel(JOB)
    calls = len(miner.urls)
    async with running(world.validator()):
        cancelled(await world.facilitator.wait_for(JOB, "failed"))
    assert len(miner.urls) == calls


async def test_a_driver_whose_send_is_stuck_reacts_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, dial = asyncio.Event(), world.dialer.dial

    async def dial_stuck(url: str, **rest: Any) -> DialledChannel:
        channel = await dial(url, **rest)
        send = channel.send

        async def slow(frame: str) -> None:
            if '"V0JobRequest"' in frame:
                stuck.set()
                await asyncio.Event().wait()
            await send(frame)

        if "miner" in url:
            monkeypatch.setattr(channel, "send", slow)
        return channel

    async def script(miner: MinerConnection) -> None:
        job = await accept(miner)
        await miner.send(vm.V0ExecutorReadyRequest(job_uuid=job))
        await miner.expect(V0CancelJobRequest)
        await miner.send(STOPPED)
        await unpaid(miner)

    monkeypatch.setattr(world.dialer, "dial", dial_stuck)
    world.miner(script)
    cancelled(await cancel_at(world))
    assert stuck.is_set()

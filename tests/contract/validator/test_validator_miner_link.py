"""Odd frames and lost connections of a miner (G47, G52)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compute_horde.chain.keys import verify
from compute_horde.chain.port import MinerEndpoint
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES
from compute_horde.protocol.control import V0JobLogsRequest
from compute_horde.protocol.enums import (
    HordeFailureReason,
)
from compute_horde.protocol.facilitator_validator import Response
from compute_horde.transport.channel import Channel, ChannelClosed, DialFailed, DialledChannel
from compute_horde.transport.memory import memory_pair
from compute_horde.validator.logs import LogDesk
from compute_horde.validator.miner_link import MinerLink
from compute_horde.validator.testing.scripted import (
    MinerConnection,
    job_request,
    running,
)
from compute_horde.validator.testing.world import (
    JOB,
    MINER,
    OTHER,
    SHORT,
    USER,
    VALIDATOR,
    WHOLE,
    World,
    finish,
    make_ready,
    never_accepts,
    result,
    whole_job,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_malformed_and_foreign_frames_of_a_miner_change_nothing(world: World) -> None:
    async def rude(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.send("PING", "{not json", '{"message_type": "V9New"}')
        for _ in range(2):
            assert "Malformed message" in (await miner.expect(vm.GenericError)).details
        await miner.send(
            vm.GenericError(details="?"),
            vm.V0MachineSpecsRequest(job_uuid=job, specs={}),
            vm.V0MainHotkeyMessage(),
            vm.V0JobFailedRequest(job_uuid=OTHER, message="foreign"),
            vm.V0ExecutorReadyRequest(job_uuid=job),
            vm.V0VolumesReadyRequest(job_uuid=job),
            vm.V0VolumesReadyRequest(job_uuid=job),
            vm.V0AcceptJobRequest(job_uuid=job),
        )
        await finish(miner, job)

    miner = world.miner(rude)
    await world.run(status="completed")
    assert not miner.errors
    assert world.facilitator.history(JOB) == WHOLE


async def test_an_oversized_frame_of_a_miner_ends_the_job(world: World) -> None:
    async def huge(miner: MinerConnection) -> None:
        await make_ready(miner)
        await miner.send("x" * (MAX_MINER_FRAME_BYTES + 1))

    world.miner(huge)
    update = await world.run(status="horde_failed")
    assert update.metadata is not None
    assert update.metadata.horde_failure_details is not None
    assert "larger than allowed" in update.metadata.horde_failure_details.message


async def test_odd_frames_of_the_facilitator_are_dropped(world: World) -> None:
    world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        facilitator = world.facilitator
        for frame in ("{", "[]", '{"message_type": "V9New"}', '{"status": "maybe"}', Response(status="success")):
            await facilitator.push(frame)
        await facilitator.push(job_request("not-a-uuid", USER))
        await facilitator.push(job_request(JOB, USER))
        await facilitator.wait_for(JOB, "completed")
    assert len(facilitator.authentications) == 1
    assert facilitator.history("not-a-uuid") == []


async def test_a_bug_ends_the_job_and_not_the_validator(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.miner(whole_job)
    validator = world.validator()
    has_class, calls = validator._dispatcher.has_class, iter([True, False])

    async def broken_once(*args: Any) -> bool:
        if next(calls):
            raise KeyError("secret")
        return await has_class(*args)

    monkeypatch.setattr(validator._dispatcher, "has_class", broken_once)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        update = await world.facilitator.wait_for(JOB, "horde_failed")
        await world.facilitator.push(job_request(OTHER, USER))
        await world.facilitator.wait_for(OTHER, "completed")
    assert "secret" not in update.to_frame()
    assert update.metadata is not None
    details = update.metadata.horde_failure_details
    assert details is not None
    assert details.reason is HordeFailureReason.UNHANDLED_EXCEPTION
    assert details.context is not None
    assert details.context["exception_type"] == "KeyError"


async def test_a_lost_miner_is_dialled_again_and_its_replay_is_not_repeated(world: World) -> None:
    async def lost(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job))
        await world.facilitator.wait_for(JOB, "volumes_ready")
        await miner.channel.close(1006)

    async def back(miner: MinerConnection) -> None:
        assert (await miner.expect(vm.ValidatorAuthForMiner)).is_signed(verify)
        await miner.manifest()
        await miner.send(vm.V0AcceptJobRequest(job_uuid=JOB), vm.V0ExecutorReadyRequest(job_uuid=JOB))
        await finish(miner, JOB)

    miner = world.miner(lost, back)
    await world.run(status="completed", execution_time_limit=5)
    assert not miner.errors
    assert world.facilitator.history(JOB) == WHOLE


@pytest.mark.parametrize("when", ["asked", "ready"])
async def test_what_a_lost_miner_may_not_have_got_is_sent_again(world: World, when: str) -> None:
    async def lost(miner: MinerConnection) -> None:
        await (never_accepts if when == "asked" else make_ready)(miner)
        await miner.channel.close(1006)

    async def back(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        if when == "asked":
            await miner.expect(vm.V0InitialJobRequest)
            await miner.send(vm.V0AcceptJobRequest(job_uuid=JOB))
            await miner.expect(vm.V0JobAcceptedReceiptRequest)
            await miner.send(vm.V0ExecutorReadyRequest(job_uuid=JOB))
        await miner.expect(vm.V0JobRequest)
        await finish(miner, JOB)

    miner = world.miner(lost, back)
    await world.run(status="completed")
    assert not miner.errors
    initial = [m for m in miner.seen if isinstance(m, vm.V0InitialJobRequest)]
    assert len({m.job_started_receipt_payload for m in initial}) == 1
    assert world.facilitator.history(JOB) == WHOLE


async def test_a_miner_that_stays_away_is_a_horde_failure(world: World) -> None:
    world.limits = dict(SHORT)

    async def lost(miner: MinerConnection) -> None:
        await make_ready(miner)
        world.dialer.unplug("ws://miner:8000/")
        await miner.channel.close(1006)

    world.miner(lost)
    update = await world.run(status="horde_failed")
    assert update.metadata is not None
    assert update.metadata.horde_failure_details is not None
    assert update.metadata.horde_failure_details.reason is HordeFailureReason.MINER_CONNECTION_FAILED
    assert await world.incidents() == [(MINER.ss58_address, "miner_unreachable")]


async def test_a_jobs_messages_on_a_siblings_connection_reach_it(world: World) -> None:
    """A miner that was away re-sends all of a validator's jobs on whichever connection comes first."""
    ready: dict[str, MinerConnection] = {}
    both = asyncio.Event()

    async def script(miner: MinerConnection) -> None:
        ready[await make_ready(miner)] = miner
        if len(ready) == 2:
            both.set()
        await both.wait()
        if miner is ready[OTHER]:
            for job in (JOB, OTHER):
                await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job))
                await miner.send(result(job))
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    miner = world.miner(script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        for uuid in (JOB, OTHER):
            await world.facilitator.push(job_request(uuid, USER))
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed")
    assert not miner.errors


class StuckDialer:
    """Its channels take no frame."""

    def __init__(self) -> None:
        self.far: list[Channel] = []

    async def dial(self, url: str, **_: Any) -> DialledChannel:
        near, far = memory_pair()
        self.far.append(far)

        async def never(frame: str) -> None:
            await asyncio.Event().wait()

        near.send = never  # type: ignore[method-assign] # the one thing that differs
        return near


async def test_an_opening_that_is_broken_off_leaves_nothing_open() -> None:
    dialer = StuckDialer()
    endpoint = MinerEndpoint(hotkey=MINER.ss58_address, address="miner", port=1)
    link = MinerLink(dialer, VALIDATOR, endpoint, JOB, {}, LogDesk())
    opening = asyncio.create_task(link.open(30))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    with pytest.raises(DialFailed):
        await link.open(0.01)
    assert not link.is_open
    assert link.extensions is None
    assert not link.ask_logs(V0JobLogsRequest(job_uuid=JOB, request_id="a", position=0))
    for far in dialer.far:
        with pytest.raises(ChannelClosed):
            await far.receive()
    assert len(dialer.far) == 2

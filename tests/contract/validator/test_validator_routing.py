"""The job finds a miner, or there is nobody to ask."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from compute_horde.chain.port import Directory, MinerEndpoint
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.enums import (
    HordeFailureReason,
    Participant,
    RejectionReason,
)
from compute_horde.protocol.problems import Problem
from compute_horde.transport.memory import MemoryChannel
from compute_horde.validator.rows import Incident
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.testing.scripted import MinerConnection, Script, job_request, running
from compute_horde.validator.testing.world import (
    JOB,
    MINER,
    OTHER,
    STRANGER,
    USER,
    WHOLE,
    World,
    silence,
    whole_job,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def rejection(world: World, **changes: Any) -> Problem:
    update = await world.run(status="rejected", **changes)
    assert world.facilitator.history(JOB) == ["received", "rejected"]
    assert update.metadata is not None
    details = update.metadata.job_rejection_details
    assert details is not None
    assert details.rejected_by is Participant.VALIDATOR
    assert details.reason is RejectionReason.NO_MINER_FOR_JOB
    found = Problem.from_context(details.context, details.message)
    assert found is not None
    return found


async def test_no_miner_is_known(world: World) -> None:
    assert "No miner is known" in (await rejection(world)).message


async def test_no_trusted_miner_is_configured(world: World) -> None:
    assert "no trusted miner" in (await rejection(world, on_trusted_miner=True)).message


async def test_no_miner_has_the_class(world: World) -> None:
    async def has_none(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.manifest(0)
        await miner.expect(vm.V0InitialJobRequest)  # the link is closed instead

    miner = world.miner(has_none)
    found = await rejection(world)
    assert "always_on.test" in found.message
    assert len(miner.seen) == 1
    assert await world.receipts() == []
    assert await world.incidents() == []


async def test_all_miners_unreachable_is_a_horde_failure_without_receipts(world: World) -> None:
    world.chain.current = Directory(
        signers=frozenset({USER.ss58_address}),
        miners=(MinerEndpoint(hotkey=MINER.ss58_address, address="nowhere", port=1),),
    )
    world.limits["queue_time_limit"] = 0
    update = await world.run(status="horde_failed")
    assert update.metadata is not None
    assert update.metadata.horde_failure_details is not None
    assert update.metadata.horde_failure_details.reason is HordeFailureReason.MINER_CONNECTION_FAILED
    assert await world.receipts() == []
    assert await world.incidents() == [(MINER.ss58_address, "miner_unreachable")]


@pytest.mark.parametrize("fault", ["unreachable", "silent", "refusing", "classless"])
async def test_a_miner_that_cannot_take_the_job_is_skipped(world: World, fault: str) -> None:
    world.limits["miner_connect_limit"] = 0.2

    async def refuse(miner: MinerConnection) -> None:
        await miner.send(vm.GenericError(details="Unknown validator"))
        await miner.channel.close()

    async def classless(miner: MinerConnection) -> None:
        await miner.manifest(0)

    scripts = {"silent": silence, "refusing": refuse, "classless": classless}
    first = world.miner(scripts.get(fault, silence), host="first", hotkey=STRANGER.ss58_address)
    if fault == "unreachable":
        world.dialer.unplug("ws://first:8000/")
    second = world.miner(whole_job)
    await world.run(status="completed")
    assert not first.errors
    assert not second.errors
    assert world.facilitator.history(JOB) == WHOLE


async def take_an_offer(miner: MinerConnection) -> None:
    await miner.expect(vm.ValidatorAuthForMiner)
    await miner.manifest()
    await miner.expect(vm.V0InitialJobRequest)


async def test_an_offer_is_made_anew_with_its_full_time_when_the_connection_breaks(world: World) -> None:
    world.limits["reservation_limit"] = 0.2

    async def breaks(miner: MinerConnection) -> None:
        await take_an_offer(miner)
        await asyncio.sleep(0.08)
        await miner.channel.close(1006)

    miner = world.miner(breaks, breaks, breaks, breaks, whole_job)
    await world.run(status="completed")
    assert not miner.errors
    assert world.facilitator.history(JOB) == WHOLE
    assert await world.incidents() == []


async def test_an_offer_without_an_answer_is_no_failure_of_a_miner_that_was_lost(world: World) -> None:
    """It is asked again when it is back, and so is any other meanwhile."""
    world.limits |= {"reservation_limit": 0.1, "attempts": 1}
    url = "ws://miner:8000/"

    async def is_unplugged(miner: MinerConnection) -> None:
        await take_an_offer(miner)
        world.dialer.unplug(url)
        await miner.channel.close(1006)

    miner = world.miner(is_unplugged, whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "queued")
        world.dialer.serve(url, miner.accept)
        await world.facilitator.wait_for(JOB, "completed")
    assert not miner.errors
    assert world.facilitator.history(JOB) == ["received", "queued", *WHOLE[1:]]
    assert await world.incidents() == [(MINER.ss58_address, "miner_unreachable")]


@pytest.mark.parametrize(("quiet_s", "end"), [(6.5, "miner_unreachable"), (5.5, "miner_silent")])
async def test_a_connection_that_brings_not_even_a_pong_is_a_lost_one(
    world: World, monkeypatch: pytest.MonkeyPatch, quiet_s: float, end: str
) -> None:
    world.limits |= {"reservation_limit": 0.1, "queue_time_limit": 0}
    dial = world.dialer.dial

    async def dial_quiet(url: str, **rest: Any) -> MemoryChannel:
        channel = await dial(url, **rest)
        channel.quiet_s = quiet_s
        return channel

    async def hangs(miner: MinerConnection) -> None:
        await take_an_offer(miner)
        await miner.channel.receive()

    monkeypatch.setattr(world.dialer, "dial", dial_quiet)
    world.miner(hangs)
    await world.run(status="horde_failed")
    assert await world.incidents() == [(MINER.ss58_address, end)]


def two_miners(world: World, *scripts: Script) -> ValidatorService:
    """The first is tried first, and silence is not borne at all."""
    for host, hotkey, script in zip(("first", "second"), (STRANGER, MINER), scripts, strict=True):
        world.miner(script, host=host, hotkey=hotkey.ss58_address)
    validator = world.validator(miner_connect_limit=30, queue_time_limit=0)
    validator._dispatcher.stagger_s = 0
    validator._reputation.note(Incident(MINER.ss58_address, OTHER, "miner_silent", time.time()))
    return validator


async def test_a_silent_miner_is_not_waited_for_and_never_asked(world: World) -> None:
    answer = asyncio.Event()

    async def slow(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await answer.wait()
        await miner.manifest()
        await miner.expect(vm.V0InitialJobRequest)  # the link is closed instead

    validator = two_miners(world, slow, whole_job)
    first = world.miners[0]
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "completed")
        assert len(validator._dispatcher._left) == 1
        answer.set()
        await asyncio.wait_for(first.idle.wait(), 5)
    assert world.facilitator.history(JOB) == WHOLE
    assert [type(message).__name__ for message in first.seen] == ["ValidatorAuthForMiner"]
    assert await world.incidents() == []


async def test_a_silent_miner_is_let_go_when_the_validator_stops(world: World) -> None:
    async def mute(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.channel.receive()

    validator = two_miners(world, mute, whole_job)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "completed")
    await asyncio.wait_for(world.miners[0].idle.wait(), 5)
    assert validator._dispatcher._left == set()
    assert await world.incidents() == []


async def test_a_miner_that_is_away_is_known_to_be_even_if_another_was_faster(world: World) -> None:
    validator = two_miners(world, silence, whole_job)
    validator._dispatcher._settings = validator._dispatcher._settings.model_copy(
        update={"miner_connect_limit": 0.05}
    )
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "completed")
        async with asyncio.timeout(5):
            while not await world.incidents():  # noqa: ASYNC110 - nothing else tells of it
                await asyncio.sleep(0)
    assert await world.incidents() == [(STRANGER.ss58_address, "miner_unreachable")]

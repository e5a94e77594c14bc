"""A running job's output is asked for through the validator, and never in the way of statuses."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.control import (
    MAX_LOGS_FRAME_BYTES,
    MAX_LOGS_WAITING,
    LogPiece,
    V0JobLogsRequest,
    V0JobLogsResponse,
)
from compute_horde.protocol.extensions import Extension
from compute_horde.transport.channel import DialledChannel
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.testing.scripted import MinerConnection, job_request, running
from compute_horde.validator.testing.world import (
    JOB,
    OTHER,
    USER,
    WHOLE,
    World,
    accept,
    finish,
    make_ready,
    result,
    silence,
)

LONG = {"execution_time_limit": 30, "download_time_limit": 30}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def ask(id_: str = "a", job: str = JOB) -> V0JobLogsRequest:
    return V0JobLogsRequest(job_uuid=job, request_id=id_, position=5)


def printed(id_: str = "a", job: str = JOB, text: str = "epoch 1\n") -> V0JobLogsResponse:
    piece = LogPiece(stream="stdout", offset=5, text=text)
    return V0JobLogsResponse(job_uuid=job, request_id=id_, state="more", position=13, pieces=[piece])


async def begin(world: World, validator: ValidatorService, status: str = "executor_ready") -> None:
    await validator.connected.wait()
    await world.facilitator.push(job_request(JOB, USER, **LONG))
    await world.facilitator.wait_for(JOB, status)


def states(world: World) -> list[tuple[str, str]]:
    return [(answer.request_id, answer.state) for answer in world.facilitator.logs]


async def until_answers(world: World, count: int) -> None:
    await world.facilitator.until(lambda: len(world.facilitator.logs) >= count)


async def test_output_is_asked_of_the_jobs_miner_and_comes_back_unchanged(world: World) -> None:
    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        assert await miner.expect(V0JobLogsRequest) == ask()
        await miner.send(printed(), printed("never asked"), printed(job="nobody's"))
        await world.facilitator.until(lambda: bool(world.facilitator.logs))
        await finish(miner, job)

    miner = world.miner(script)
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        await world.facilitator.push(ask())
        await world.facilitator.wait_for(JOB, "completed")
        await asyncio.wait_for(miner.idle.wait(), 5)
        await world.facilitator.push(ask("b"))  # the job has ended
        await world.facilitator.push(ask("c", OTHER))  # nobody knows it
        await until_answers(world, 3)
    assert not miner.errors
    assert world.facilitator.logs[0] == printed()
    assert sorted(states(world)[1:]) == [("b", "ended"), ("c", "unavailable")]
    assert world.facilitator.history(JOB) == WHOLE  # each status had its own answer


async def test_before_a_miner_is_found_nobody_can_tell(world: World) -> None:
    world.miner(silence)
    validator = world.validator(miner_connect_limit=30)
    async with running(validator):
        await begin(world, validator, "received")
        await world.facilitator.push(ask())
        await until_answers(world, 1)
    assert states(world) == [("a", "unavailable")]
    assert world.facilitator.logs[0].position == 5


async def test_a_request_on_the_heels_of_its_job_finds_it(world: World) -> None:
    world.miner(silence)
    validator = world.validator(miner_connect_limit=30)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.push(ask())
        await until_answers(world, 1)
    assert states(world) == [("a", "unavailable")]


async def test_a_miner_without_the_extension_is_never_asked(world: World) -> None:
    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await world.facilitator.until(lambda: bool(world.facilitator.logs))
        await finish(miner, job)

    miner = world.miner(script, extensions=(Extension.CANCEL,))
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        await world.facilitator.push(ask())
        await world.facilitator.wait_for(JOB, "completed")
    assert states(world) == [("a", "unavailable")]
    assert not miner.errors


async def test_a_lost_miner_answers_nothing_and_is_asked_anew_when_it_is_back(world: World) -> None:
    async def lost(miner: MinerConnection) -> None:
        await make_ready(miner)
        await miner.expect(V0JobLogsRequest)
        await miner.channel.close(1006)

    async def back(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.expect(vm.V0JobRequest)
        again.set()
        assert (await miner.expect(V0JobLogsRequest)).request_id == "b"
        await miner.send(printed("b"))
        await finish(miner, JOB)

    again = asyncio.Event()
    miner = world.miner(lost, back)
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        await world.facilitator.push(ask())
        await until_answers(world, 1)
        await asyncio.wait_for(again.wait(), 5)
        await world.facilitator.push(ask("b"))
        await world.facilitator.wait_for(JOB, "completed")
        await until_answers(world, 2)
    assert not miner.errors
    assert states(world) == [("a", "unavailable"), ("b", "more")]


async def test_what_waits_when_the_job_ends_is_answered_so(world: World) -> None:
    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.expect(V0JobLogsRequest)
        await finish(miner, job)
        await miner.channel.receive()

    world.miner(script)
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        await world.facilitator.push(ask())
        await until_answers(world, 1)
    assert states(world) == [("a", "ended")]


async def test_the_oldest_of_too_many_requests_is_answered(world: World) -> None:
    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        for number in range(MAX_LOGS_WAITING + 1):
            assert (await miner.expect(V0JobLogsRequest)).request_id == f"{number}"
        await miner.send(printed("0"), printed("1"))
        await world.facilitator.until(lambda: len(world.facilitator.logs) == 2)
        await finish(miner, job)

    miner = world.miner(script)
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        for number in range(MAX_LOGS_WAITING + 1):
            await world.facilitator.push(ask(f"{number}"))
        await world.facilitator.wait_for(JOB, "completed")
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert not miner.errors
    assert states(world)[:2] == [("0", "unavailable"), ("1", "more")]


async def test_a_miner_that_reads_nothing_is_not_sent_more_than_a_hop_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = asyncio.Event()

    async def script(miner: MinerConnection) -> None:
        await make_ready(miner)
        await stuck.wait()

    world.miner(script)
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        (link,) = validator._dispatcher._switchboard.values()

        async def full(_frame: str) -> None:
            await stuck.wait()

        assert link._channel is not None
        monkeypatch.setattr(link._channel, "send", full)
        for number in range(MAX_LOGS_WAITING + 1):  # one is being sent, the others wait for it
            assert link.ask_logs(ask(f"{number}")) is (number < MAX_LOGS_WAITING)
        await asyncio.sleep(0)
        assert link.ask_logs(ask("one more"))
        assert not link.ask_logs(ask("too many"))
        monkeypatch.undo()
        stuck.set()


async def test_a_flood_of_output_delays_no_status(world: World) -> None:
    async def flood(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.expect(V0JobLogsRequest)
        await miner.send(printed(text="x" * MAX_LOGS_FRAME_BYTES))  # too large: as if it had never come
        for number in range(2000):
            await miner.send(printed(f"{number}"))
        await finish(miner, job)

    miner = world.miner(flood)
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        await world.facilitator.push(ask())
        await world.facilitator.wait_for(JOB, "completed")
        await asyncio.wait_for(miner.idle.wait(), 5)
        await until_answers(world, 1)
    assert not miner.errors
    assert states(world) == [("a", "ended")]
    assert world.facilitator.history(JOB) == WHOLE


async def test_a_status_waits_for_one_answer_at_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many answers lie ready for a facilitator that reads slowly when the job goes on."""
    held, arrived = asyncio.Event(), list[str]()
    dial = world.dialer.dial

    async def dial_slowly(url: str, **rest: Any) -> DialledChannel:
        channel = await dial(url, **rest)
        send = channel.send

        async def slow(frame: str) -> None:
            if "V0JobLogsResponse" in frame:
                await held.wait()
            await send(frame)
            arrived.append(json.loads(frame)["message_type"])

        if "facilitator" in url:
            monkeypatch.setattr(channel, "send", slow)
        return channel

    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        for _ in range(MAX_LOGS_WAITING):
            await miner.expect(V0JobLogsRequest)
        for number in range(MAX_LOGS_WAITING):
            await miner.send(printed(f"{number}"))
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job))
        await silent.wait()

    monkeypatch.setattr(world.dialer, "dial", dial_slowly)
    silent = asyncio.Event()
    world.miner(script)
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        for number in range(MAX_LOGS_WAITING):
            await world.facilitator.push(ask(f"{number}"))
        async with asyncio.timeout(5):
            while (await validator._store.unfinished())[0].state is not JobState.VOLUMES_READY:
                pass
        for _ in range(20):
            await asyncio.sleep(0)
        arrived.clear()
        held.set()
        await world.facilitator.wait_for(JOB, "volumes_ready")
        await until_answers(world, MAX_LOGS_WAITING)
    assert arrived.index("V0JobStatusUpdate") <= 1


async def test_a_facilitator_of_the_existing_network_is_sent_no_output(world: World) -> None:
    facilitator = world.facilitator
    facilitator.extensions = ()
    facilitator.plug()

    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.expect(V0JobLogsRequest)
        await miner.send(printed())
        await finish(miner, job)

    world.miner(script)
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        await facilitator.push(ask())
        await facilitator.wait_for(JOB, "completed")
    assert facilitator.logs == []


async def test_an_answer_for_a_connection_that_is_gone_is_dropped(world: World) -> None:
    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.expect(V0JobLogsRequest)
        await world.facilitator.drop()
        await world.facilitator.until(lambda: len(world.facilitator.authentications) == 2)
        await miner.send(printed())
        await finish(miner, job)

    miner = world.miner(script)
    validator = world.validator()
    async with running(validator):
        await begin(world, validator)
        await world.facilitator.push(ask())
        await world.facilitator.wait_for(JOB, "completed")
        await asyncio.wait_for(miner.idle.wait(), 5)
    assert not miner.errors
    assert world.facilitator.logs == []


async def test_a_miner_may_answer_over_the_connection_of_another_job(world: World) -> None:
    there: dict[str, MinerConnection] = {}
    both, done = asyncio.Event(), asyncio.Event()

    async def script(miner: MinerConnection) -> None:
        job = await accept(miner)
        there[job] = miner
        if len(there) == 2:
            both.set()
        if job == JOB:
            await miner.expect(V0JobLogsRequest)
            await there[OTHER].send(printed())
        await done.wait()

    world.miner(script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        for uuid in (JOB, OTHER):
            await world.facilitator.push(job_request(uuid, USER))
        await asyncio.wait_for(both.wait(), 5)
        await world.facilitator.push(ask())
        await until_answers(world, 1)
        done.set()
    assert world.facilitator.logs == [printed()]


async def test_the_evidence_of_a_result_passes_through(world: World) -> None:
    evidence: dict[str, Any] = {"image_digest": "sha256:" + "a" * 64, "output_hashes": {"model/w.bin": "b" * 64}}

    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.send(result(job).model_copy(update=evidence))
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    world.miner(script)
    update = await world.run(status="completed")
    assert update.metadata is not None
    assert update.metadata.miner_response is not None
    assert update.metadata.miner_response.image_digest == evidence["image_digest"]
    assert update.metadata.miner_response.output_hashes == evidence["output_hashes"]

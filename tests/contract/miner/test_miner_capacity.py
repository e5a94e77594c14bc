"""How many executors are free is told to validators that understand it, and to no others (``capacity``)."""

import asyncio
import uuid
from pathlib import Path

from compute_horde.miner.capacity import CapacityNews
from compute_horde.miner.connection import Connection
from compute_horde.miner.pool import Pool
from compute_horde.miner.testing import (
    ALICE,
    BOB,
    LLM,
    TEST,
    Peer,
    Stuck,
    finished,
    initial,
    open_horde,
    request,
    until,
)
from compute_horde.protocol.extensions import LINK_EXTENSIONS, announcement
from compute_horde.protocol.validator_miner import V0ExecutorReadyRequest
from compute_horde.transport.memory import memory_pair


async def free(peer: Peer) -> int:
    told: dict[str, int] = (await peer.expect("V0FreeExecutorsRequest"))["free"]
    assert set(told) == {TEST.value}
    return told[TEST.value]


async def test_it_follows_the_manifest_and_each_change(tmp_path: Path) -> None:
    job = str(uuid.uuid4())
    async with open_horde(tmp_path) as horde:
        follower = await horde.validator(BOB, extensions=LINK_EXTENSIONS)
        assert await free(follower) == 2
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        assert await free(follower) == 1
        executor = await horde.executor()
        await executor.say(V0ExecutorReadyRequest(job_uuid=job))
        await validator.expect("V0ExecutorReadyRequest")
        await validator.say(request(job))
        await executor.expect("V0InitialJobRequest", "V0JobRequest")
        await executor.say(finished(job))
        assert await free(follower) == 2


async def test_a_restart_tells_what_is_taken_already(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as crashed:
        await crashed.begun(str(uuid.uuid4()))
        await crashed.crash()
    async with open_horde(tmp_path) as horde:
        assert await free(await horde.validator(BOB, extensions=LINK_EXTENSIONS)) == 1


async def test_a_validator_that_left_is_told_no_more(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        follower = await horde.validator(BOB, extensions=LINK_EXTENSIONS)
        assert await free(follower) == 2
        await follower.channel.close()
        validator = await horde.validator()
        await validator.say(initial(str(uuid.uuid4())))
        await validator.expect("V0AcceptJobRequest")


async def test_changes_of_one_turn_are_one_message_and_the_same_again_is_none() -> None:
    pool = Pool({TEST: 3, LLM: 0})
    news = CapacityNews(pool)
    near, far = memory_pair(request=announcement())
    connection = Connection(far, ALICE.ss58_address)
    peer, stuck = Peer(near), Stuck(far)
    news.follow(connection)
    slots = [pool.reserve(TEST), pool.reserve(TEST)]
    connection.say(V0ExecutorReadyRequest(job_uuid="1"))
    connection.finish()
    assert stuck.peer
    for slot in slots:
        assert slot is not None
        slot.release()
    pool.reserve(TEST)
    await until(lambda: pool.free(TEST) == 2)
    await connection.write()
    await peer.expect("V0ExecutorReadyRequest")
    assert await peer.hangup() == 1000
    news.leave(connection)


async def test_a_slow_validator_gets_the_newest_only() -> None:
    pool = Pool({TEST: 3})
    news = CapacityNews(pool)
    near, far = memory_pair(request=announcement())
    stuck = Stuck(far)
    connection = Connection(stuck, ALICE.ss58_address)
    writing = asyncio.create_task(connection.write())
    news.follow(connection)
    for _ in range(3):
        pool.reserve(TEST)
        await asyncio.sleep(0.002)
    stuck.go.set()
    peer = Peer(near)
    assert [await free(peer), await free(peer)] == [3, 0]
    connection.finish()
    await writing

"""When the last message counts as delivered: a miner of ours says so, one of the existing network need not."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.executor.adoption import HAPPY, Case, Time

from compute_horde.executor import link as links
from compute_horde.executor.fake_miner import FakeMiner, initial_request
from compute_horde.executor.link import REDIAL_SECONDS, STORED_CODE, LinkLost, MinerLink
from compute_horde.protocol.extensions import LINK_EXTENSIONS, announcement
from compute_horde.protocol.validator_miner import GenericError, V0JobFailedRequest
from compute_horde.transport.channel import Channel, ChannelClosed
from compute_horde.transport.memory import MemoryDialer

LAST = V0JobFailedRequest(job_uuid="00000000-0000-4000-8000-000000000001")
Script = Callable[[Channel], Awaitable[None]]


class Scripted:
    """A miner that greets, and goes through one script a connection. ``received``: how often the last message
    came.
    """

    def __init__(self, *scripts: Script, ours: bool = True) -> None:
        self.dialer, self.time = MemoryDialer(), Time()
        self.dialer.serve("ws://", self._accept, announcement(LINK_EXTENSIONS) if ours else None)
        self._scripts, self.connections, self.received = iter(scripts), 0, 0

    async def _accept(self, url: str, headers: Any, channel: Channel) -> None:
        self.connections += 1
        script = next(self._scripts)
        if script not in (turns_away, hangs_up):
            await channel.send(initial_request(LAST.job_uuid).to_frame())
        await script(_Counted(channel, self))

    def link(self) -> MinerLink:
        return MinerLink(self.dialer, "ws://miner", "token", clocks=self.time.clocks())


class _Counted:
    def __init__(self, channel: Channel, miner: Scripted) -> None:
        self._channel, self._miner = channel, miner
        self.send, self.close, self.peer = channel.send, channel.close, channel.peer
        self.peer_headers = channel.peer_headers

    async def receive(self) -> str:
        frame = await self._channel.receive()
        assert frame == LAST.to_frame()
        self._miner.received += 1
        return frame


def closes(code: int) -> Script:
    """Takes the last message, then closes."""

    async def script(channel: Channel) -> None:
        await channel.receive()
        await channel.close(code)

    return script


async def leaves(channel: Channel) -> None:
    """Closes as after a result, before there is one."""
    await channel.close(STORED_CODE)


async def says_nothing(channel: Channel) -> None:
    """Takes the last message, and everything else is silence."""
    await channel.receive()
    with pytest.raises(ChannelClosed):
        await channel.receive()


async def turns_away(channel: Channel) -> None:
    """Has forgotten the job, since it has its result."""
    await channel.send(GenericError(details="No job waiting for token").to_frame())
    await channel.close(STORED_CODE)


async def hangs_up(channel: Channel) -> None:
    """Is stopping, and greets nobody."""
    await channel.close(1001)


@pytest.fixture(autouse=True)
def in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes the short cut takes it in no time."""
    monkeypatch.setattr(links, "CLOSE_GRACE_SECONDS", 0.01)


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not is_true():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)


async def deliver(miner: Scripted) -> MinerLink:
    """A link that has delivered its only message, or has found that it cannot."""
    link = miner.link()
    link.finish(LAST)
    await end(link)
    return link


async def end(link: MinerLink) -> None:
    assert await link.drained_within(5)


async def test_the_code_of_a_stored_message_is_enough() -> None:
    miner = Scripted(closes(STORED_CODE))
    await deliver(miner)
    assert (miner.connections, miner.received) == (1, 1)


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1008, 1011])
async def test_any_other_code_is_not(code: int) -> None:
    miner = Scripted(closes(code), closes(code), closes(STORED_CODE))
    await deliver(miner)
    assert (miner.connections, miner.received) == (3, 3)


async def test_the_code_before_the_message_means_nothing() -> None:
    miner = Scripted(leaves, closes(STORED_CODE))
    link = miner.link()
    await until(lambda: miner.connections == 2)
    link.finish(LAST)
    await end(link)
    assert (miner.connections, miner.received) == (2, 1)


async def test_silence_is_waited_through_and_a_loss_then_repeats_the_message() -> None:
    go_on = asyncio.Event()

    async def breaks(channel: Channel) -> None:
        await channel.receive()
        await go_on.wait()
        await channel.close(1006)

    miner = Scripted(breaks, closes(STORED_CODE))
    link = miner.link()
    link.finish(LAST)
    await until(lambda: miner.received)
    assert not await link.drained_within(0.05), "there is no short cut with a miner of ours"
    go_on.set()
    await end(link)
    assert (miner.connections, miner.received) == (2, 2)


@pytest.mark.parametrize(("kept_s", "bearable_s"), [(0, REDIAL_SECONDS - 1), (500, 499)])
async def test_silence_is_waited_through_so_long_as_the_job_is_kept(kept_s: float, bearable_s: float) -> None:
    miner = Scripted(says_nothing)
    link = miner.link()
    link.persist(miner.time.elapsed() + kept_s)
    link.finish(LAST)
    await until(lambda: miner.received)
    await turns()
    miner.time.moved += bearable_s
    assert not await link.drained_within(0.03)
    miner.time.moved += 2
    await end(link)
    with pytest.raises(LinkLost, match="does not say that it has stored"):
        await link.lost()
    assert miner.connections == 1


async def test_a_close_that_got_lost_ends_with_being_turned_away() -> None:
    miner = Scripted(closes(1006), turns_away)
    link = await deliver(miner)
    with pytest.raises(LinkLost, match="does not know"):
        await link.lost()
    assert (miner.connections, miner.received) == (2, 1)


class _Closed:
    """A connection that the miner has closed, after words that have not been read yet."""

    peer, peer_headers, quiet_s, dials = "miner", announcement(), 0.0, 0

    async def dial(self, *_: Any, **__: Any) -> "_Closed":
        self.dials += 1
        return self

    async def send(self, frame: str) -> None:
        raise ChannelClosed(STORED_CODE)

    async def receive(self) -> str:
        await turns(3)
        return GenericError(details="No job waiting for token").to_frame()

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


async def test_why_the_miner_closed_is_read_though_nothing_can_be_sent() -> None:
    closed = _Closed()
    link = MinerLink(closed, "ws://miner", "token")
    link.finish(LAST)
    await end(link)
    with pytest.raises(LinkLost, match="does not know"):
        await link.lost()
    assert closed.dials == 1


async def test_a_miner_that_hangs_up_on_everybody_is_not_dialled_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = [0.0, 0.001, 0.01]
    monkeypatch.setattr(links, "backoff", lambda **_: iter(pauses))
    begun, slept = Time().elapsed(), sum(pauses)
    miner = Scripted(hangs_up, hangs_up, hangs_up, closes(1001), closes(STORED_CODE))
    link = await deliver(miner)
    assert Time().elapsed() - begun >= slept
    assert (miner.connections, miner.received) == (5, 2)
    assert (await link.initial()).job_uuid == LAST.job_uuid


async def test_a_miner_that_only_ever_hangs_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "backoff", lambda **_: itertools.repeat(0.001))
    miner = Scripted(*itertools.repeat(hangs_up, 5000))
    link = miner.link()
    link.persist(miner.time.elapsed() + 500)
    link.finish(LAST)
    await until(lambda: miner.connections > 2)
    miner.time.moved += 490
    before = miner.connections
    await until(lambda: miner.connections > before + 2)
    miner.time.moved += 11
    await end(link)
    with pytest.raises(LinkLost, match="hangs up"):
        await link.lost()


async def test_a_link_that_is_closed_meanwhile_ends() -> None:
    miner = Scripted(says_nothing)
    link = miner.link()
    link.finish(LAST)
    await until(lambda: miner.received)
    await link.close()
    assert await link.drained_within(0)


# a miner that announces nothing


@pytest.mark.parametrize("script", [says_nothing, closes(STORED_CODE), closes(1001)])
async def test_a_miner_of_the_existing_network_need_not_say_anything(script: Script) -> None:
    miner = Scripted(script, ours=False)
    await deliver(miner)
    assert (miner.connections, miner.received) == (1, 1)


async def test_a_connection_to_it_that_breaks_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "CLOSE_GRACE_SECONDS", 2)  # the miner is quicker
    miner = Scripted(closes(1006), closes(1001), ours=False)
    await deliver(miner)
    assert (miner.connections, miner.received) == (2, 2)


# a whole executor


class Leaving(FakeMiner):
    """Closes with ``code`` when the last message has come, and is then another miner's process: one that has the
    result of the job (``knows`` False), or has not.
    """

    def __init__(self, code: int, *, knows: bool) -> None:
        super().__init__(job={"docker_run_cmd": ["work"]})
        self._code, self._knows, self.times = code, knows, 0

    async def _accept(self, url: str, headers: Any, channel: Channel) -> None:
        self.refuses = self.times > 0 and not self._knows
        await super()._accept(url, headers, _Leaving(channel, self))


class _Leaving:
    def __init__(self, channel: Channel, miner: Leaving) -> None:
        self._channel, self._miner = channel, miner
        self.send, self.peer, self.peer_headers = channel.send, channel.peer, channel.peer_headers

    async def receive(self) -> str:
        frame = await self._channel.receive()
        if HAPPY[-1] in frame:
            self._miner.times += 1
        return frame

    async def close(self, code: int = 1000, reason: str = "") -> None:
        first = self._miner.times == 1
        await self._channel.close(self._miner._code if first else code, reason)


@pytest.mark.parametrize(("code", "knows", "times"), [(1001, True, 2), (1006, True, 2), (1006, False, 1)])
async def test_a_result_is_delivered_whatever_becomes_of_the_miner(
    tmp_path: Path, code: int, knows: bool, times: int
) -> None:
    case = Case(tmp_path, output_upload=None)
    miner = Leaving(code, knows=knows)
    miner._initial = miner._initial.model_copy(update={"volume": case.miner._initial.volume})
    case.miner = miner  # type: ignore[assignment] # has no points
    await case.finish()
    assert (miner.times, case.runs) == (times, 1)

"""Backoff, and what is special about the channel in memory."""

from itertools import islice

import pytest

from compute_horde.transport.backoff import backoff, redialling
from compute_horde.transport.channel import ChannelClosed, DialFailed
from compute_horde.transport.memory import MemoryDialer, memory_pair


def test_pauses_double_up_to_a_cap() -> None:
    assert list(islice(backoff(1, 5, jitter=0), 5)) == [1, 2, 4, 5, 5]
    assert all(1 <= first <= 1.2 for (first,) in (islice(backoff(1), 1) for _ in range(50)))


def test_a_lost_peer_is_dialled_often_at_first_and_rarely_later() -> None:
    pauses = list(islice(redialling(0.5, 5, 8), 16))
    assert all(0.5 <= pause <= 0.6 for pause in pauses[:10])
    assert pauses[10] >= 1
    assert all(8 <= pause <= 9.6 for pause in pauses[14:])


def test_a_close_says_how() -> None:
    assert str(ChannelClosed(1009, "too big")) == "connection closed (1009: too big)"
    assert str(ChannelClosed()) == "connection closed (1006)"


async def test_nobody_serves_an_unplugged_address() -> None:
    dialer = MemoryDialer()
    with pytest.raises(DialFailed, match="nobody serves it"):
        await dialer.dial("ws://h/", max_frame_bytes=1)


async def test_a_pair_has_two_names() -> None:
    left, right = memory_pair()
    assert {left.peer, right.peer} == {"memory:left", "memory:right"}

"""A job's timers: on a clock that counts suspension."""

import asyncio

import pytest

from compute_horde.miner.testing import FakeClock, until
from compute_horde.miner.timers import Timers


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_it_rings_when_its_time_has_passed_on_the_clock(clock: FakeClock) -> None:
    timers, rung = clock.timers(), asyncio.Event()
    timers.arm("a", 10, rung.set)
    clock.now += 9.9
    await asyncio.sleep(0.01)
    assert not rung.is_set()
    assert timers.armed("a")
    clock.now += 0.1
    await until(rung.is_set)
    assert not timers.armed("a")


async def test_a_machine_that_was_suspended_is_noticed_at_the_next_look(clock: FakeClock) -> None:
    """The loop's own clock has hardly moved."""
    timers, rung = Timers(clock, recheck_s=0.01), asyncio.Event()
    timers.arm("a", 3600, rung.set)
    clock.now += 7200
    await until(rung.is_set)


async def test_disarmed_or_armed_anew_it_does_not_ring(clock: FakeClock) -> None:
    timers, rung = clock.timers(), []
    timers.arm("a", 0, lambda: rung.append("first"))
    timers.arm("a", 1, lambda: rung.append("second"))
    timers.arm("b", 1, lambda: rung.append("b"))
    timers.disarm("b")
    timers.disarm("b")
    clock.now += 2
    await until(lambda: bool(rung))
    timers.arm("c", 0, lambda: rung.append("c"))
    timers.clear()
    await asyncio.sleep(0.01)
    assert rung == ["second"]


async def test_one_that_is_late_already_rings_at_once(clock: FakeClock) -> None:
    rung = asyncio.Event()
    clock.timers().arm("a", -5, rung.set)
    await until(rung.is_set)


async def test_by_default_it_is_the_clock_of_the_machine() -> None:
    rung = asyncio.Event()
    Timers().arm("a", 0.01, rung.set)
    await until(rung.is_set)

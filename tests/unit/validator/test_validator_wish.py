"""The wish to cancel, and turns: no clock moves here."""

import asyncio

import pytest

from compute_horde.validator.turns import Turns
from compute_horde.validator.wish import CancelWish, CancelWished


async def test_a_wish_breaks_off_a_wait_within_turns_of_the_loop() -> None:
    wish, never = CancelWish(), asyncio.Event()

    async def wait() -> None:
        async with wish.waiting(None):
            await never.wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    wish.wish()
    wish.wish()
    for _ in range(4):
        await asyncio.sleep(0)
    assert waiting.done()
    with pytest.raises(CancelWished):
        waiting.result()


async def test_after_a_wish_nothing_is_waited_for_until_it_is_heeded() -> None:
    wish = CancelWish(wished=True)
    with pytest.raises(CancelWished):
        async with wish.waiting(None):
            raise AssertionError
    with pytest.raises(CancelWished):
        wish.check()
    wish.heed()
    wish.check()
    async with wish.waiting(None):
        wish.wish()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert wish.heeded
    assert wish.wished


async def test_time_that_is_over_is_no_wish() -> None:
    wish = CancelWish()
    with pytest.raises(TimeoutError):
        async with wish.waiting(0):
            await asyncio.Event().wait()


async def test_a_wish_at_the_very_end_of_the_time_counts() -> None:
    wish = CancelWish()

    async def wait() -> None:
        async with wish.waiting(0):
            try:
                await asyncio.Event().wait()
            finally:
                wish.wish()

    with pytest.raises(CancelWished):
        await wait()


async def test_a_wait_of_a_task_that_is_cancelled_is_cancelled() -> None:
    wish = CancelWish()

    async def wait() -> None:
        async with wish.waiting(None):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not wish.wished


async def test_turns_are_taken_in_order_per_key_and_nothing_is_left_of_them() -> None:
    turns, done, gate = Turns(), list[str](), asyncio.Event()

    async def work(key: str, name: str, *, waits: bool = False) -> None:
        async with turns.of(key):
            if waits:
                await gate.wait()
            done.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(work("a", "first", waits=True))
        group.create_task(work("a", "second"))
        group.create_task(work("b", "other"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert done == ["other"]
        gate.set()
    assert done == ["other", "first", "second"]
    assert not turns._locks
    assert not turns._waiting

"""Attempts in a staggered race; with no stagger or an endless one, no clock is waited for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from compute_horde.validator.race import first_of

ENDLESS = 3600.0


class Course:
    """Attempts by name; each waits for its word."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.left: list[asyncio.Task[str | None]] = []
        self.words: dict[str, asyncio.Future[str | None]] = {}

    def attempt(self, name: str) -> Callable[[], Coroutine[Any, Any, str | None]]:
        async def run() -> str | None:
            self.begun.append(name)
            self.words[name] = asyncio.get_running_loop().create_future()
            return await self.words[name]

        return run

    def start(self, names: str, stagger_s: float) -> asyncio.Task[str | None]:
        return asyncio.create_task(first_of(map(self.attempt, names), stagger_s, self.left.append))


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_next_begins_when_one_has_failed_and_not_before() -> None:
    course = Course()
    race = course.start("abc", ENDLESS)
    await turns()
    assert course.begun == ["a"]
    course.words["a"].set_result(None)
    await turns()
    assert course.begun == ["a", "b"]
    course.words["b"].set_result("b")
    assert await race == "b"
    assert course.begun == ["a", "b"]
    assert course.left == []


async def test_silence_lets_the_next_begin_and_the_slower_are_left() -> None:
    course = Course()
    race = course.start("abc", 0)
    await asyncio.sleep(0.01)
    assert course.begun == ["a", "b", "c"]
    course.words["c"].set_result("c")
    assert await race == "c"
    assert [task.done() for task in course.left] == [False, False]
    for task in course.left:
        task.cancel()


async def test_of_two_at_once_the_earlier_wins_and_the_other_is_left() -> None:
    course = Course()
    race = course.start("ab", 0)
    await asyncio.sleep(0.01)
    course.words["b"].set_result("b")
    course.words["a"].set_result("a")
    assert await race == "a"
    assert [await task for task in course.left] == ["b"]


async def test_nobody_wins() -> None:
    course = Course()
    assert await course.start("", 0) is None
    race = course.start("ab", ENDLESS)
    for name in "ab":
        await turns()
        course.words[name].set_result(None)
    assert await race is None


async def test_a_race_that_is_called_off_calls_off_its_attempts() -> None:
    course = Course()
    race = course.start("ab", ENDLESS)
    await turns()
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    await turns()
    assert [task.cancelled() for task in course.left] == [True]

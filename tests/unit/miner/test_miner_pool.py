"""The pool of executors (section 7.3)."""

import asyncio

import pytest

from compute_horde.miner.launcher import FakeExecutor
from compute_horde.miner.pool import ClassNotOffered, Pool, until_ended
from compute_horde.protocol.enums import ExecutorClass

TEST = ExecutorClass.always_on__test
LLM = ExecutorClass.always_on__llm__a6000


def over_after(seconds: float) -> "asyncio.Future[float]":
    future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    future.set_result(seconds)
    return future


def test_as_many_places_as_executors() -> None:
    pool = Pool({TEST: 2, LLM: 0})
    first, second = pool.reserve(TEST), pool.reserve(TEST)
    assert first is not None
    assert second is not None
    assert pool.reserve(TEST) is None
    assert pool.free(TEST) == 0
    first.release()
    assert pool.free(TEST) == 1


def test_releasing_twice_frees_one_place() -> None:
    pool = Pool({TEST: 2})
    first, _ = pool.reserve(TEST), pool.reserve(TEST)
    assert first is not None
    first.release()
    first.release()
    assert pool.free(TEST) == 1


def test_a_place_is_lent_on_while_its_executor_tidies_up() -> None:
    pool = Pool({TEST: 1})
    first = pool.reserve(TEST)
    assert first is not None
    first.job_over()
    first.job_over()
    second = pool.reserve(TEST)
    assert second is not None
    second.job_over()
    assert pool.free(TEST) == 0, "two that tidy up in one place: one of them is stuck"
    first.release()
    assert pool.free(TEST) == 1


def test_a_place_that_is_not_offered_any_more_is_taken_all_the_same() -> None:
    pool = Pool({TEST: 1})
    changes: list[int] = []
    pool.changed = lambda: changes.append(pool.free(TEST))
    slots = [pool.take(TEST), pool.take(TEST), pool.take(LLM)]
    assert pool.reserve(TEST) is None
    slots[0].release()
    assert pool.reserve(TEST) is None
    slots[1].job_over()
    assert pool.free(TEST) == 1
    assert changes == [0, 0, 0, 0, 1]


def test_the_manifest_names_what_is_offered_busy_or_not() -> None:
    pool = Pool({TEST: 2, LLM: 0})
    pool.reserve(TEST)
    assert pool.manifest() == {TEST: 2}


@pytest.mark.parametrize("capacity", [{}, {LLM: 0}])
def test_a_class_that_is_not_offered(capacity: dict[ExecutorClass, int]) -> None:
    with pytest.raises(ClassNotOffered):
        Pool(capacity).reserve(LLM)


async def test_an_executor_that_ends_by_itself() -> None:
    executor = FakeExecutor("token", TEST, "ws://miner")
    executor.end(3)
    never: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    assert await until_ended(executor, never) == 3
    assert not executor.killed


async def test_an_executor_that_does_not_tidy_up_in_time_is_killed() -> None:
    executor = FakeExecutor("token", TEST, "ws://miner")
    assert await until_ended(executor, over_after(0.01)) == -15
    assert executor.killed


async def test_an_executor_that_cannot_be_killed_is_given_up() -> None:
    executor = FakeExecutor("token", TEST, "ws://miner")
    executor.stuck = True
    assert await until_ended(executor, over_after(0), kill_limit_s=0.01) is None
    assert executor.killed

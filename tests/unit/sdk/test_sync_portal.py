"""The way from threads without a loop into the loop of a client, and back."""

import asyncio
import contextvars
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from compute_horde_sdk._internal.sync.portal import Portal, _close_all
from compute_horde_sdk._internal.sync.step import Step
from compute_horde_sdk.v1 import ComputeHordeConnectionError, ComputeHordeUnsupportedError


class Ended:
    """Counts how often the portal's last act ran."""

    times = 0

    async def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def portal(ended: Ended) -> Iterator[Portal]:
    made = Portal(ended)
    yield made
    made.close()
    assert made._thread is None or not made._thread.is_alive()


async def same(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_the_thread_starts_with_the_first_call_and_ends_with_the_close(portal: Portal, ended: Ended) -> None:
    before = threading.active_count()
    assert portal.call(same(3)) == 3
    thread = portal._thread
    assert thread is not None
    assert thread.daemon
    assert threading.active_count() == before + 1
    portal.close()
    assert not thread.is_alive()
    assert ended.times == 1
    portal.close()
    assert ended.times == 1


def test_a_portal_that_was_never_used_closes_without_a_thread(portal: Portal, ended: Ended) -> None:
    portal.close()
    assert (portal._thread, ended.times) == (None, 0)


def test_after_the_close_calls_are_refused(portal: Portal) -> None:
    portal.call(same(1))
    portal.close()
    with pytest.raises(ComputeHordeConnectionError) as caught:
        portal.call(same(2))
    assert (caught.value.code, caught.value.retryable) == ("client_closed", False)


def test_exceptions_cross_with_their_traceback(portal: Portal) -> None:
    async def deep() -> None:
        raise LookupError("down there")

    with pytest.raises(LookupError, match="down there") as caught:
        portal.call(deep())
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-1] == "deep"


async def test_it_can_be_called_where_a_loop_is_running(portal: Portal) -> None:
    assert portal.call(same(4)) == 4


def test_several_threads_call_at_once(portal: Portal) -> None:
    together = 0
    most = 0

    async def overlapping(value: int) -> int:
        nonlocal together, most
        together += 1
        most = max(most, together)
        while most < 8:  # noqa: ASYNC110 - until all are here
            await asyncio.sleep(0)
        together -= 1
        return value

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda value: portal.call(overlapping(value)), range(8))) == list(range(8))


def test_the_first_calls_of_several_threads_share_one_loop(portal: Portal) -> None:
    async def loop() -> int:
        return id(asyncio.get_running_loop())

    barrier = threading.Barrier(8)

    def call() -> int:
        barrier.wait()
        return portal.call(loop())

    with ThreadPoolExecutor(8) as pool:
        assert len({future.result() for future in [pool.submit(call) for _ in range(8)]}) == 1


def test_context_variables_of_the_caller_hold_inside(portal: Portal) -> None:
    name = contextvars.ContextVar("name", default="nobody")

    async def read() -> str:
        return name.get()

    name.set("caller")
    assert portal.call(read()) == "caller"


def interrupt() -> None:
    """Ctrl-C. The main thread runs the tests."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_ctrl_c_cancels_the_work_and_waits_for_its_end(portal: Portal) -> None:
    steps: list[str] = []

    async def work() -> None:
        interrupt()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            steps.append("tidied up")

    with pytest.raises(KeyboardInterrupt):
        portal.call(work())
    assert steps == ["tidied up"]
    assert portal.call(same(5)) == 5


async def test_work_cancelled_before_it_was_started_is_never_begun() -> None:
    step = Step(same(1), set())
    step.cancel()
    with pytest.raises(ComputeHordeConnectionError):
        step.outcome.result(0)


def test_ctrl_c_before_anything_was_begun(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(step: Step[int]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(portal, "_submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.call(same(1))


def test_ctrl_c_at_any_moment_leaves_the_portal_usable(portal: Portal) -> None:
    interrupted = 0
    for turn in range(200):

        async def work(turn: int = turn) -> None:
            if turn % 3 == 0:
                interrupt()
            await asyncio.sleep(60 if turn % 3 == 0 else 0)

        try:
            portal.call(work())
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted == 67
    assert portal.call(same(8)) == 8
    assert not portal._calls


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_would_stop_a_loop_reaches_the_caller_and_leaves_the_loop_running(
    portal: Portal, kind: type[BaseException]
) -> None:
    async def leave() -> None:
        raise kind

    async def leave_in_a_task() -> None:
        await asyncio.create_task(leave())

    for work in (leave, leave_in_a_task):
        with pytest.raises(kind):
            portal.call(work())
    assert portal.call(same(6)) == 6


def test_a_call_from_the_portals_own_thread_is_refused(portal: Portal) -> None:
    async def inside() -> list[str]:
        codes = []
        for attempt in (lambda: portal.call(same(1)), portal.close):
            with pytest.raises(ComputeHordeUnsupportedError) as caught:
                attempt()
            codes.append(caught.value.code)
        return codes

    assert portal.call(inside()) == ["sync_call_in_callback"] * 2
    assert portal.call(same(7)) == 7


def test_closing_ends_the_calls_of_other_threads(portal: Portal) -> None:
    started = threading.Event()

    async def wait() -> None:
        started.set()
        await asyncio.sleep(60)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: portal.call(wait()))
        assert started.wait(5)
        portal.close()
        with pytest.raises(ComputeHordeConnectionError, match="closed"):
            waiting.result()


def test_what_the_calls_left_running_ends_with_the_close(portal: Portal) -> None:
    left: list[asyncio.Task[None]] = []

    async def leave_a_task() -> None:
        left.append(asyncio.create_task(asyncio.sleep(60)))

    portal.call(leave_a_task())
    portal.close()
    assert left[0].cancelled()


def test_what_closing_the_connections_raises_is_raised_once() -> None:
    async def refuse() -> None:
        raise OSError("stuck")

    portal = Portal(refuse)
    portal.call(same(1))
    with pytest.raises(OSError, match="stuck"):
        portal.close()
    portal.close()


def test_connections_that_do_not_close_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[Portal.__module__], "PATIENCE_S", 0.01)
    portal = Portal(lambda: asyncio.sleep(60))
    portal.call(same(1))
    with pytest.raises(TimeoutError):
        portal.close()


def test_abandoning_closes_in_the_background(portal: Portal, ended: Ended) -> None:
    portal.call(same(1))
    portal.abandon()
    portal.join(5)
    assert ended.times == 1


def test_what_is_open_at_exit_is_closed(portal: Portal, ended: Ended) -> None:
    portal.call(same(1))
    _close_all()
    assert ended.times == 1
    assert portal._thread is not None
    assert not portal._thread.is_alive()


def test_a_thread_that_cannot_start_leaves_no_loop_behind(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        portal.call(same(1))
    monkeypatch.undo()
    assert portal.call(same(1)) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # as of Python 3.12
def test_a_forked_child_is_told_so(portal: Portal) -> None:
    portal.call(same(1))
    numbers = portal.iterate(count([]), str)
    next(numbers)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        told = b"nothing"
        try:
            portal.call(same(2))
        except ComputeHordeConnectionError as error:
            told = error.code.encode()
            numbers.close()
            portal.abandon()
            portal.close()
            _close_all()
        finally:
            os.write(writer, told)
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        assert answer.read() == b"client_forked"
    os.waitpid(child, 0)
    assert portal.call(same(3)) == 3
    assert list(numbers) == ["1", "2"]


async def count(seen: list[str]) -> AsyncIterator[int]:
    try:
        for number in range(3):
            seen.append(f"made {number}")
            yield number
    finally:
        seen.append("closed")


def test_items_are_made_when_they_are_asked_for(portal: Portal) -> None:
    seen: list[str] = []
    numbers = portal.iterate(count(seen), lambda number: number * 10)
    assert seen == []
    assert next(numbers) == 0
    assert seen == ["made 0"]
    assert list(numbers) == [10, 20]
    assert seen[-1] == "closed"


def test_breaking_off_closes_the_iterator(portal: Portal) -> None:
    seen: list[str] = []
    for _ in portal.iterate(count(seen), str):
        break
    gc.collect()
    assert seen == ["made 0", "closed"]


def test_an_iterator_runs_in_one_task_from_beginning_to_end(portal: Portal) -> None:
    """So that a time limit or a group of tasks around a yield works as it does with ``async for``."""
    tasks: list[object] = []

    async def limited() -> AsyncIterator[int]:
        async with asyncio.timeout(60):
            try:
                for number in range(2):
                    tasks.append(asyncio.current_task())
                    yield number
            finally:
                tasks.append(asyncio.current_task())

    assert list(portal.iterate(limited(), str)) == ["0", "1"]
    assert len(tasks) == 3
    assert len(set(map(id, tasks))) == 1


def test_exceptions_of_an_iterator_cross(portal: Portal) -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise LookupError("no more")

    numbers = portal.iterate(failing(), str)
    assert next(numbers) == "1"
    with pytest.raises(LookupError, match="no more"):
        next(numbers)
    assert list(numbers) == []


def test_exceptions_of_an_iterators_closing_cross(portal: Portal) -> None:
    async def failing() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise LookupError("would not close")

    numbers = portal.iterate(failing(), str)
    next(numbers)
    with pytest.raises(LookupError, match="would not close"):
        numbers.close()


def test_an_iterator_that_is_no_generator_needs_no_closing(portal: Portal) -> None:
    class Twice:
        left = 2

        def __aiter__(self) -> "Twice":
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(portal.iterate(Twice(), str)) == ["1", "0"]


def test_ctrl_c_ends_an_iterator(portal: Portal) -> None:
    seen: list[str] = []

    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
            interrupt()
            await asyncio.sleep(60)
        finally:
            seen.append("closed")

    numbers = portal.iterate(slow(), str)
    next(numbers)
    with pytest.raises(KeyboardInterrupt):
        next(numbers)
    assert seen == ["closed"]


def test_an_iterator_left_to_the_portals_own_thread_is_closed_without_waiting(portal: Portal) -> None:
    seen: list[str] = []
    numbers = [portal.iterate(count(seen), str)]
    next(numbers[0])

    async def drop() -> None:
        numbers.clear()

    portal.call(drop())
    deadline = time.monotonic() + 5
    while "closed" not in seen and time.monotonic() < deadline:
        portal.call(asyncio.sleep(0))
    assert seen == ["made 0", "closed"]


def test_an_iterator_outlived_by_nobody_ends_with_the_portal(portal: Portal) -> None:
    seen: list[str] = []
    numbers = portal.iterate(count(seen), str)
    next(numbers)
    portal.close()
    assert seen == ["made 0", "closed"]
    with pytest.raises(ComputeHordeConnectionError, match="closed"):
        next(numbers)


def test_an_iterator_that_was_never_begun_needs_nothing(portal: Portal) -> None:
    portal.iterate(count([]), str).close()
    assert portal._thread is None

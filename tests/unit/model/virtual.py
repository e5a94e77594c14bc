"""Time that passes only when nobody has anything to do, for everything in this process: no test waits on it.

The event loop's clock, the clocks of :mod:`time` and SQLite's own go together. Threads are not used: what would go
to one is done at once.
"""

import asyncio
import contextlib
import contextvars
import os
import random
import selectors
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

import pytest
from tests.unit.model.processes import OWNER, Process

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
EPOCH = 1_800_000_000.0
"""The wall clock when a world begins; a boot was 1,000 s before."""

_UNIX_EPOCH_JULIAN = 2440587.5


class _Selector(selectors.DefaultSelector):
    """Looks, and lets time pass instead of waiting."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if not (events := super().select(0)) and timeout is not None:
            self.passed += max(0.0, timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time. Tasks belong to the :class:`Process` in whose context they are made."""

    def __init__(self) -> None:
        self.clock = _Selector()
        super().__init__(self.clock)
        self.set_task_factory(_owned)

    def time(self) -> float:
        return self.clock.passed

    def wall(self) -> float:
        return EPOCH + self.clock.passed

    def elapsed(self) -> float:
        return 1000.0 + self.clock.passed

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        """Done at once; a process that was killed does nothing any more."""
        future: asyncio.Future[T] = self.create_future()
        owner = OWNER.get()
        try:
            if owner is not None and not owner.alive:
                raise OSError("killed")
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def _owned(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    context: contextvars.Context = options.get("context") or contextvars.copy_context()
    owner: Process | None = context.get(OWNER)
    if owner is not None:
        owner.adopt(task)
    return task


@contextlib.contextmanager
def virtual_world(seed: int) -> Iterator[VirtualLoop]:
    """A loop of its own, on whose time everything runs inside the block; chance is the seed's."""
    loop = VirtualLoop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", loop.wall)
        patch.setattr(time, "time_ns", lambda: int(loop.wall() * 1e9))
        patch.setattr(time, "monotonic", loop.elapsed)
        patch.setattr(time, "clock_gettime", lambda _clock: loop.elapsed())
        patch.setattr(sqlite3, "connect", _connecting(loop, sqlite3.connect))
        dice = random.Random(seed)
        patch.setattr(os, "urandom", dice.randbytes)
        patch.setattr(random, "_urandom", dice.randbytes)
        patch.setattr(random, "Random", lambda given=None: _Random(seed if given is None else given))
        try:
            yield loop
        finally:
            loop.close()


_Random = random.Random


def _connecting(
    loop: VirtualLoop, connect: Callable[..., sqlite3.Connection]
) -> Callable[..., sqlite3.Connection]:
    def connected(*args: Any, **options: Any) -> sqlite3.Connection:
        owner = OWNER.get()
        if owner is not None and not owner.alive:
            raise sqlite3.OperationalError("killed")
        connection = connect(*args, **options)
        connection.create_function("julianday", -1, lambda *_: loop.wall() / 86400 + _UNIX_EPOCH_JULIAN)
        if owner is not None:
            owner.connected(connection)
        return connection

    return connected

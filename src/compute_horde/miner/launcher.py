"""The port to whatever starts executors, and its fake."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from compute_horde.protocol.enums import ExecutorClass


class LaunchFailed(RuntimeError):  # noqa: N818 - an event more than an error
    """No executor could be started. The text says why."""


class LaunchedExecutor(Protocol):
    """One executor on its one job."""

    async def wait(self) -> int | None:
        """Return when it has ended: its exit code, or None where there is none. May be cancelled and repeated."""
        ...

    async def kill(self) -> None:
        """Ask it to stop, then force it. Returns when it has ended; killing one that ended is fine."""
        ...


class ExecutorLauncher(Protocol):
    """Starts executors (section 7.2). One that was launched dials ``miner_url`` with its token.

    A second one with the same token takes over from one that died, and stands by while that one lives.
    """

    async def warm(self, executor_class: ExecutorClass, count: int) -> None:
        """Keep ``count`` executors of the class started, so that a launch takes no time."""
        ...

    async def launch(self, token: str, executor_class: ExecutorClass, miner_url: str) -> LaunchedExecutor:
        """Return at once with a warm executor, or start one. :raises LaunchFailed: says why."""
        ...

    async def close(self, *, kill: bool = False) -> None:
        """End the warm ones, and let go of those at work: they go on as well as they can without this process.

        ``kill``: end those at work, too. Twice is fine.
        """
        ...


class FakeExecutor:
    """A :class:`LaunchedExecutor` that ends when the test says so."""

    def __init__(self, token: str, executor_class: ExecutorClass, miner_url: str) -> None:
        self.token, self.executor_class, self.miner_url = token, executor_class, miner_url
        self.killed = False
        self.stuck = False
        self.code: int | None = None
        self._ended = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def end(self, code: int = 0) -> None:
        self.code = code
        self._ended.set()

    async def wait(self) -> int | None:
        await self._ended.wait()
        return self.code

    async def kill(self) -> None:
        """A ``stuck`` one notes the wish and lives on."""
        self.killed = True
        if not self.stuck:
            self.end(-15)


@dataclass
class FakeLauncher:
    """An :class:`ExecutorLauncher` that starts nothing and remembers everything.

    ``broken``: launches fail. ``slow``: they never return. ``doomed``: so many of those launched next end at once.
    """

    broken: bool = False
    doomed: int = 0
    slow: bool = False
    warmed: dict[ExecutorClass, int] = field(default_factory=dict)
    launched: list[FakeExecutor] = field(default_factory=list)
    closed: bool = False

    async def warm(self, executor_class: ExecutorClass, count: int) -> None:
        self.warmed[executor_class] = count

    async def launch(self, token: str, executor_class: ExecutorClass, miner_url: str) -> LaunchedExecutor:
        if self.broken:
            raise LaunchFailed("the fake launcher is broken")
        if self.slow:
            await asyncio.Event().wait()
        executor = FakeExecutor(token, executor_class, miner_url)
        self.launched.append(executor)
        if self.doomed:
            self.doomed -= 1
            executor.end(1)
        return executor

    async def close(self, *, kill: bool = False) -> None:
        self.closed = True
        for executor in self.launched:
            if kill:
                executor.end(-15)

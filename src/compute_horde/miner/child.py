"""A child process that may outlive this one."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence


class Child:
    """A process in a session of its own, so that a Ctrl-C at this one's terminal is this one's to pass on.

    asyncio's own subprocesses are killed when their event loop goes; this one is not. Linux only: it is watched by
    its file descriptor (``pidfd_open``).
    """

    def __init__(self, command: Sequence[str]) -> None:
        """:raises OSError: it cannot be started."""
        self._process = subprocess.Popen(  # noqa: S603 - a command of the miner's own
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._watch, self._reap)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def say(self, line: bytes) -> None:
        """Write one short line to its stdin, and close that. :raises OSError: it has ended."""
        stdin = self._process.stdin
        if stdin is None or not self.alive:
            raise BrokenPipeError("the process has ended")
        with stdin:
            stdin.write(line + b"\n")

    async def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        await asyncio.wait({self._ended})
        return self._process.returncode if self._process.returncode is not None else 0

    async def kill(self, term_s: float) -> None:
        """SIGTERM, and SIGKILL if it is still there after ``term_s`` seconds. Returns when it has ended."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(term_s):
                await self.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.wait()

    def let_go(self) -> None:
        """Watch it no more. It lives on, also when this process ends."""
        if self.alive:
            self._unwatch()
            self._process.returncode = 0  # else Popen warns of a child that nobody waited for

    def _reap(self) -> None:
        if self._process.poll() is not None:
            self._unwatch()
            self._ended.set_result(None)

    def _unwatch(self) -> None:
        asyncio.get_running_loop().remove_reader(self._watch)
        os.close(self._watch)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            self._process.send_signal(number)

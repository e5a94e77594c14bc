"""Cables between services: TCP relays that can be cut, hung, held or slowed while the services run."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

CHUNK = 16 * 1024


class Loop:
    """An event loop in a thread of its own, so that relays go on whatever the test does."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Any) -> Any:
        """Run a coroutine there and wait for its result."""
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(30)

    def close(self) -> None:
        self.call(self._settle())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _settle(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Strand:
    """One connection through a wire."""

    def __init__(self, hung: bool) -> None:
        self.hung = hung
        self.writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Reset both sides."""
        for writer in self.writers:
            writer.transport.abort()


class Wire:
    """A relay to a port of this machine; :attr:`port` is what the other service dials."""

    def __init__(self, loop: Loop, target: Callable[[], int]) -> None:
        self._loop, self._target = loop, target
        self._strands: set[Strand] = set()
        self._open, self._open_for_new = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._open_for_new.set()
        self.bytes_a_second = 0.0
        self.port = 0
        loop.call(self._listen())

    # what can happen to it

    def cut(self) -> None:
        """Every connection is reset; new ones pass."""
        self._now(self._cut)

    def hang(self) -> None:
        """What is connected now never hears anything any more, nor of an end (half-open); new ones pass."""
        self._now(self._hang)

    def hold(self) -> None:
        """Nothing passes until :meth:`release`."""
        self._now(self._open.clear)

    def hold_new(self) -> None:
        """New connections are taken, and nothing of them passes until :meth:`release`."""
        self._now(self._open_for_new.clear)

    def release(self) -> None:
        self._now(self._open.set)
        self._now(self._open_for_new.set)

    def slow(self, bytes_a_second: float) -> None:
        """0: as fast as it can."""
        self.bytes_a_second = bytes_a_second

    def close(self) -> None:
        self.release()
        self._loop.call(self._close())

    # its inside

    def _cut(self) -> None:
        for strand in list(self._strands):
            strand.cut()

    def _hang(self) -> None:
        for strand in self._strands:
            strand.hung = True

    def _now(self, change: Callable[[], None]) -> None:
        async def apply() -> None:
            change()

        self._loop.call(apply())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        self._cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        strand = Strand(hung=False)
        strand.writers.append(writer)
        self._strands.add(strand)
        try:
            await self._open_for_new.wait()
            upstream, out = await asyncio.open_connection("127.0.0.1", self._target())
            strand.writers.append(out)
            pumps = [
                asyncio.ensure_future(self._pump(strand, *ends)) for ends in ((reader, out), (upstream, writer))
            ]
            await asyncio.gather(*pumps)
        except OSError:
            strand.cut()
        finally:
            self._strands.discard(strand)
            strand.cut()

    async def _pump(self, strand: Strand, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK):
                await self._open.wait()
                if strand.hung:
                    await asyncio.Event().wait()
                if self.bytes_a_second:
                    await asyncio.sleep(len(data) / self.bytes_a_second)
                target.write(data)
                await target.drain()
        except ConnectionError:
            if not strand.hung:
                strand.cut()  # a reset is passed on
        if strand.hung:
            await asyncio.Event().wait()
        target.close()

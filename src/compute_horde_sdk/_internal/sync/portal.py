"""One event loop in one daemon thread, and the way into it for programs that do not await.

Who calls is blocked until the coroutine has ended. Any thread may call, and several at once, also one in which
another event loop is running (a notebook's cell). Callbacks that the coroutines call run in the portal's own
thread, which cannot wait for itself: a call from there is refused.
"""

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import wait
from typing import Any, TypeVar

from compute_horde_sdk._internal.exceptions import ComputeHordeError
from compute_horde_sdk._internal.sync.feed import Feed
from compute_horde_sdk._internal.sync.step import Step, callback_error, closed_error, forked_error

T = TypeVar("T")
U = TypeVar("U")

PATIENCE_S = 5.0
"""How long something that was cancelled, or that closes, may take before it is left to itself."""

_running: "set[Portal]" = set()


class Portal:
    """Starts its thread with the first call.

    :param last: awaited in the loop at the close, once the calls that still ran were cancelled.
    """

    def __init__(self, last: Callable[[], Awaitable[None]]) -> None:
        self._last = last
        self._lock = threading.Lock()
        self._closed = False
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._closing = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns, or its exception. Ctrl-C cancels it, and is raised once it has ended.

        :raises ComputeHordeConnectionError: ``client_closed``, also in the middle of it; ``client_forked``.
        :raises ComputeHordeUnsupportedError: ``sync_call_in_callback``.
        """
        step = Step(work, self._calls)
        try:
            self._submit(step)
            wait([step.outcome])
        except ComputeHordeError:  # refused, and not begun
            work.close()
            raise
        except BaseException:  # Ctrl-C at any point of that
            if self._post(step.cancel):
                wait([step.outcome], PATIENCE_S)
            else:
                work.close()
            raise
        try:
            return step.outcome.result()
        finally:
            del step  # it holds the exception, whose traceback holds this frame

    def iterate(self, items: AsyncIterator[T], convert: Callable[[T], U]) -> Generator[U, None, None]:
        """What ``convert`` makes of each of the items, which are fetched when they are asked for.

        Closing this generator, or leaving it to the garbage collector, closes the async one.
        Raises what :meth:`call` raises.
        """
        feed = Feed(items)
        try:
            while found := self.call(feed.next()):
                yield convert(found[0])
        finally:
            if self._closed or self._is_forked() or self._is_inside():
                self._post(feed.cancel)
            else:
                self.call(feed.aclose())

    def close(self) -> None:
        """Cancel what runs, close the connections, end the thread. Does nothing the second time.

        :raises ComputeHordeUnsupportedError: ``sync_call_in_callback``.
        :raises Exception: what closing the connections raised.
        """
        if self._is_inside():
            raise callback_error()
        if not self._is_forked():
            with self._lock:  # a call that has it is submitted before the loop hears of the close
                self._closed = True
        self.abandon()
        self.join(3 * PATIENCE_S)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def abandon(self) -> None:
        """Begin to close. Takes no lock and waits for nothing: the garbage collector calls it at any moment."""
        self._closed = True
        self._post(self._closing.set)

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, at most ``timeout`` seconds."""
        if self._thread is not None and not self._is_forked():
            self._thread.join(timeout)

    def _submit(self, step: Step[Any]) -> None:
        if self._is_inside():
            raise callback_error()
        if self._is_forked():
            raise forked_error()
        with self._lock:
            if self._closed:
                raise closed_error()
            (self._loop or self._start()).call_soon_threadsafe(step.start)

    def _start(self) -> asyncio.AbstractEventLoop:
        self._pid = os.getpid()
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(loop,), name="compute-horde-sync", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self._loop = self._thread = None
            loop.close()
            raise
        _running.add(self)
        return loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        main = loop.create_task(self._main())
        try:
            while not main.done():
                # a callback may raise these; asyncio then stops the loop, and the call it belongs to has them, too
                with contextlib.suppress(KeyboardInterrupt, SystemExit):
                    loop.run_until_complete(main)
        finally:
            loop.close()
            _running.discard(self)

    async def _main(self) -> None:
        await self._closing.wait()
        await _cancelled(self._calls)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._last()
        except Exception as error:  # for close() to raise
            self._failure = error
        await _cancelled({task for task in asyncio.all_tasks() if task is not asyncio.current_task()})
        await asyncio.get_running_loop().shutdown_asyncgens()

    def _post(self, callback: Callable[[], object]) -> bool:
        """Have it called in the loop; False when there is none."""
        if self._loop is None or self._is_forked():
            return False
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # it was closed meanwhile
            return False
        return True

    def _is_inside(self) -> bool:
        return self._thread is not None and self._thread.ident == threading.get_ident()

    def _is_forked(self) -> bool:
        """Whether the thread stayed behind in the parent process."""
        return self._thread is not None and self._pid != os.getpid()


async def _cancelled(tasks: "set[asyncio.Task[Any]]") -> None:
    """Return when they have ended, or have had their time."""
    if tasks:
        for task in tasks:
            task.cancel()
        await asyncio.wait(set(tasks), timeout=PATIENCE_S)


@atexit.register
def _close_all() -> None:
    """Close the clients that were left open while the interpreter is still whole."""
    portals = list(_running)
    for portal in portals:
        portal.abandon()
    for portal in portals:
        portal.join(PATIENCE_S)

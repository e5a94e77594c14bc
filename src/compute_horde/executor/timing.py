"""Clocks that outlive the process, and waiting by them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from compute_horde.lifecycle.clock import RECHECK_SECONDS, elapsed

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Names this boot of the machine; empty where the system does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Clocks:
    """``elapsed``: seconds that no suspension stops and no adjustment moves; comparable within one ``boot``.
    ``wall``: seconds since 1970, for what must outlive a reboot.
    """

    elapsed: Callable[[], float] = elapsed
    wall: Callable[[], float] = time.time
    boot: Callable[[], str] = boot_id
    recheck_s: float = RECHECK_SECONDS

    async def sleep_until(self, moment: float) -> None:
        """Return when ``elapsed`` has reached ``moment``, at most ``recheck_s`` late after a suspension."""
        while (left := moment - self.elapsed()) > 0:  # noqa: ASYNC110 - a clock tells nobody
            await asyncio.sleep(min(left, self.recheck_s))

    @contextlib.asynccontextmanager
    async def timeout_at(self, moment: float) -> AsyncIterator[None]:
        """Like :func:`asyncio.timeout_at`, by ``elapsed``. :raises TimeoutError:"""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as scope:
            timer: asyncio.TimerHandle | None = None

            def look() -> None:
                nonlocal timer
                if (left := moment - self.elapsed()) <= 0:
                    scope.reschedule(loop.time())
                else:
                    timer = loop.call_later(min(left, self.recheck_s), look)

            look()
            try:
                yield
            finally:
                if timer is not None:
                    timer.cancel()

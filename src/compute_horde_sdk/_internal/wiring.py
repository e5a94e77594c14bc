"""What the client is made of besides its arguments, so that tests can put a fake clock and a fake network in."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only a type
    import httpx


@dataclass(frozen=True)
class Wiring:
    """Times in seconds.

    * ``poll_first_s``, ``poll_cap_s``: pauses between looks at a job while there is no event stream
    * ``quiet_refresh_s``: how long a job may be silent on a healthy stream before it is looked at
    * ``stream_open_s``: how long the facilitator may take to answer the request for the stream
    """

    transport: "httpx.AsyncBaseTransport | None" = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    now_ns: Callable[[], int] = time.time_ns
    poll_first_s: float = 0.2
    poll_cap_s: float = 3.0
    quiet_refresh_s: float = 30.0
    stream_open_s: float = 5.0

    def backoff(self, attempt: int) -> float:
        """The pause after the ``attempt``-th failure (from 1): doubling from 0.2 s, jittered, 5 s at most."""
        return float(min(0.2 * 2 ** min(attempt - 1, 10) * (1 + self.jitter()), 5.0))

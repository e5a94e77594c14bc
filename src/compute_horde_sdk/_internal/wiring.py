"""What the client is made of besides its arguments, so that tests can put a fake clock and a fake network in."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only a type
    import httpx

QUICK_REDIALS = 20
REDIAL_CAP_S = 1.0
"""A facilitator that cannot be reached is tried so often at least: one that is started anew is soon back."""


@dataclass(frozen=True)
class Wiring:
    """Times in seconds.

    * ``clock``: monotonic; jumps of the machine's clock change nothing but the signatures' timestamps
    * ``retry_s``: a call that fails in a way that may pass is made again for this long, with the pauses of
      :meth:`backoff`; the facilitator's restart takes less. One try more may begin just before, so a call takes
      at most this long, a ``Retry-After`` and ``request_s``
    * ``request_s``: how long one try may take in all, however much moves
    * ``sample``: which jobs are cross-validated; no seed that the program sets, and no miner, foretells it
    * ``max_answer_bytes``: a larger answer is not read; a job with its result is at most 50 MiB on the links that
      carry it
    * ``poll_first_s``, ``poll_cap_s``: pauses between looks at a job while there is no event stream
    * ``quiet_refresh_s``: how long a job may be silent on a healthy stream before it is looked at
    * ``stream_open_s``: how long the facilitator may take to answer the request for a stream
    * ``stream_silence_s``: a stream without a byte for this long is taken for dead; a comment comes every 15 s
    * ``stream_retry_s``: how long a facilitator without an event stream is not asked for it again
    """

    transport: "httpx.AsyncBaseTransport | None" = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    sample: Callable[[], float] = random.SystemRandom().random
    now_ns: Callable[[], int] = time.time_ns
    clock: Callable[[], float] = time.monotonic
    retry_s: float = 25.0
    request_s: float = 300.0
    max_answer_bytes: int = 128 * 1024 * 1024
    poll_first_s: float = 0.2
    poll_cap_s: float = 3.0
    quiet_refresh_s: float = 60.0
    stream_open_s: float = 5.0
    stream_silence_s: float = 40.0
    stream_retry_s: float = 300.0

    def backoff(self, attempt: int) -> float:
        """The pause after the ``attempt``-th failure (from 1): doubling from 0.2 s, jittered, 5 s at most."""
        return float(min(0.2 * 2 ** min(attempt - 1, 10) * (1 + self.jitter()), 5.0))

    def redial(self, attempt: int) -> float:
        """The pause before a lost stream is opened again: about half a second at first, since a facilitator that
        is started anew is back within seconds; as :meth:`backoff` later.
        """
        return 0.3 * (1 + self.jitter()) if attempt <= QUICK_REDIALS else self.backoff(attempt - QUICK_REDIALS)

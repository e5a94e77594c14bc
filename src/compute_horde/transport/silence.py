"""Notices connections whose peer is gone without a word: a pulled cable, a suspended machine, a lost route.

Both sides send pings, so that something comes from a living peer every few seconds. What counts is that bytes come
in, not that a ping is answered in time: an answer may wait behind a result of megabytes on a slow line.
"""

import asyncio

PING_SECONDS = 5
QUIET_SECONDS = PING_SECONDS + 1.0
"""Whoever is quiet for longer has not even answered a ping, and is probably gone."""

SILENCE_SECONDS = 20.0


class SilenceWatch:
    """Aborts a transport that has brought nothing for ``limit_s`` seconds; its protocol then hears of the loss."""

    def __init__(self, transport: asyncio.Transport, limit_s: float = SILENCE_SECONDS) -> None:
        self._transport, self._limit = transport, limit_s
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._timer = self._later()

    def heard(self) -> None:
        """Something has come in."""
        self._heard_at = self._loop.time()

    @property
    def quiet_s(self) -> float:
        """Seconds since something came in."""
        return self._loop.time() - self._heard_at

    def stop(self) -> None:
        """The connection is over. Twice is fine."""
        self._timer.cancel()

    def _later(self) -> asyncio.TimerHandle:
        return self._loop.call_later(self._limit / 4, self._look)

    def _look(self) -> None:
        if not self._transport.is_reading():  # the reader is slow, not the peer
            self.heard()
        if self._loop.time() - self._heard_at >= self._limit:
            self._transport.abort()
        else:
            self._timer = self._later()

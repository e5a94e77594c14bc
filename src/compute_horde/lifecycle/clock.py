"""The clock of deadlines: it never jumps, and goes on while the machine is suspended."""

import time

RECHECK_SECONDS = 30.0
"""Timers of the event loop stand still while the machine is suspended: whoever waits looks here so often."""

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)  # not there on every system


def elapsed() -> float:
    """Seconds since the machine was booted, the time in which it was suspended included.

    Only differences mean anything, and only within one boot: what is stored for after a restart is wall clock.
    """
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)

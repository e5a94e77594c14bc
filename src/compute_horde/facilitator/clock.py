"""The facilitator's two clocks."""

import time
from collections.abc import Callable

from compute_horde.lifecycle.clock import elapsed


def steady_clock(
    wall: Callable[[], float] = time.time, passed: Callable[[], float] = elapsed
) -> Callable[[], float]:
    """UNIX seconds that only ever pass, as on the wall clock at this moment.

    For deadlines: whatever happens to the wall clock then, none comes too soon and none never, and they pass
    while the machine is suspended.
    """
    begun = wall() - passed()
    return lambda: begun + passed()

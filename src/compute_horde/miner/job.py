"""A job in the miner's hands: the stored row, and who is connected about it."""

import asyncio
from dataclasses import dataclass, field

from compute_horde.lifecycle.deadlines import Limits
from compute_horde.lifecycle.states import JobState
from compute_horde.miner.connection import Connection
from compute_horde.miner.logs import LogRoutes
from compute_horde.miner.pool import Slot
from compute_horde.miner.store import Envelope, JobRow
from compute_horde.miner.timers import Timers
from compute_horde.protocol.base import Message
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.validator_miner import ExecutorTiming, V0InitialJobRequest
from compute_horde.transport.channel import Channel

SINGLE_TIMEOUT_SECONDS = 300
"""What a validator of the oldest kind grants the whole job (section 6.8)."""


@dataclass(eq=False)
class Job:
    """``row`` is replaced, never changed; ``since``: when it came to its state, in UNIX seconds.

    ``listeners``: who hears of the job; one connection once it is
    ``claimed``, which is when the validator spoke of this very job there, otherwise all of its validator's.
    ``requested``: the validator's job request has come. ``extensions``: what the connected executor announced.
    ``logs``: who waits for the job's output.

    ``restored``: it was accepted before a restart, so that an executor may be alive which this process never
    launched. ``watched``: a launched executor's end is waited for. ``deserted``: none is alive any more, and none
    will be launched. ``executor_died``: one did so before the job was over, and none has come since to take over
    what it left behind. ``met``: one has been connected. ``away`` is set while none is. ``on_the_disk``: done when
    not even a power failure could make the miner forget the job; None for one that was restored.

    ``over`` is set when the job has ended, to the seconds that its executor has to tidy up.
    """

    row: JobRow
    since: float = 0.0
    seen: set[str] = field(default_factory=set)
    listeners: set[Connection] = field(default_factory=set)
    claimed: bool = False
    channel: Channel | None = None
    extensions: frozenset[Extension] = frozenset()
    logs: LogRoutes = field(default_factory=LogRoutes)
    slot: Slot | None = None
    requested: bool = False
    restored: bool = False
    watched: bool = False
    deserted: bool = False
    met: bool = False
    launches: int = 0
    executor_died: bool = False
    on_the_disk: "asyncio.Future[None] | None" = None
    acknowledged: bool = False
    over: "asyncio.Future[float]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    outbox: asyncio.Lock = field(default_factory=asyncio.Lock)
    feed: asyncio.Lock = field(default_factory=asyncio.Lock)
    timers: Timers = field(default_factory=Timers)
    away: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.away.set()
        self.acknowledged = self.acknowledged or self.row.acknowledged

    @property
    def uuid(self) -> str:
        return self.row.job_uuid

    @property
    def ended(self) -> bool:
        return self.row.state.is_terminal

    def move(self, state: JobState, now: float) -> float:
        """How long (seconds) it was in the state that it leaves."""
        stayed = max(0.0, now - self.since)  # a wall clock may be set back
        self.row, self.since = self.row._replace(state=state), now
        return stayed

    def connect(self, channel: Channel, extensions: frozenset[Extension]) -> None:
        """Its executor is here."""
        self.channel, self.extensions, self.met, self.executor_died = channel, extensions, True, False
        self.away.clear()

    def hang_up(self) -> None:
        """Its executor's connection has ended."""
        self.channel, self.extensions = None, frozenset()
        self.away.set()

    def finish(self, tidy_up_s: float) -> None:
        """The job is over: no timer rings any more, its executor may tidy up.

        Its place is lent on meanwhile; that of an executor which is to be killed only when it has ended. What was
        kept for the executor is let go of: the database has it.
        """
        self.timers.clear()
        self.row = self.row._replace(initial="", request=None)
        if not self.over.done():
            self.over.set_result(tidy_up_s)
        if self.slot is None:
            return
        if not self.watched:
            self.slot.release()
        elif tidy_up_s > 0:
            self.slot.job_over()


def envelope(message: Message) -> Envelope:
    return Envelope(str(getattr(message, "message_type", "")), message.to_frame())


def limits_of(request: V0InitialJobRequest, startup: float) -> Limits:
    """The job's limits as the validator asks for them; absent ones count as nothing (section 6.3)."""
    timing = request.executor_timing
    if timing is None:
        whole = request.timeout_seconds if request.timeout_seconds is not None else SINGLE_TIMEOUT_SECONDS
        timing = ExecutorTiming(execution_time_limit=whole)
    return Limits(
        download=max(0, timing.download_time_limit or 0),
        execution=max(0, timing.execution_time_limit or 0),
        upload=max(0, timing.upload_time_limit or 0),
        streaming_start=max(0, timing.streaming_start_time_limit or 0),
        leeway=max(0, timing.allowed_leeway or 0),
        startup=startup,
    )

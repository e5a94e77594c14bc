"""Status changes pushed by the facilitator: one stream per client, shared by everything that waits."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import httpx
from pydantic import ValidationError

from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.sdk_facilitator import JobEvent, JobQueueEvent
from compute_horde_sdk._internal.exceptions import ComputeHordeError
from compute_horde_sdk._internal.port import Change
from compute_horde_sdk._internal.wire.answers import client_closed, retry_after_s
from compute_horde_sdk._internal.wire.http import FAILED, Facilitator
from compute_horde_sdk._internal.wire.reading import change_of, place_change_of
from compute_horde_sdk._internal.wire.sse import (
    EventTooLarge,
    ServerSentEvent,
    SSEParser,
    is_event_stream,
    read_events,
)
from compute_horde_sdk._internal.wiring import Wiring

EVENTS_PATH = "/api/v1/events/"
NO_STREAM = frozenset({404, 405, 406, 410, 501})
MAX_RETRY_S = 30.0


class Subscription:
    """One waiter's share of the stream. ``reopen``: asks the hub for it, should there be none."""

    __slots__ = ("_closed", "_events", "_reopen", "_stale", "_waiter")

    def __init__(self, reopen: Callable[[], object]) -> None:
        self._reopen = reopen
        self._events: deque[Change] | None = None
        self._stale = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def push(self, event: Change) -> None:
        if self._events is None:
            self._events = deque()
        self._events.append(event)
        self._wake()

    def mark_stale(self) -> None:
        """Events may have been missed: the job has to be looked at, which tells all that they would have."""
        self._stale, self._events = True, None
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def refreshing(self) -> None:
        """The job is about to be looked at; what happens from here on counts as new.

        :raises ComputeHordeConnectionError: the client was closed.
        """
        self._check_open()
        self._reopen()
        self._stale = False

    async def next(self, within_s: float) -> Change | None:
        """The next event; None when the job has to be looked at, at the latest after ``within_s``.

        :raises ComputeHordeConnectionError: the client was closed.
        """
        if not (self._events or self._stale or self._closed):
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            alarm = loop.call_later(within_s, self._wake)
            try:
                await self._waiter
            finally:
                alarm.cancel()
                self._waiter = None
        self._check_open()
        return None if self._stale or not self._events else self._events.popleft()

    def _check_open(self) -> None:
        if self._closed:
            raise client_closed()


class EventHub:
    """Keeps the stream open while anyone subscribes.

    A lost stream is opened again where it broke off (``Last-Event-ID``), wherever that leads, and then every
    subscriber looks at its job once. Where the facilitator has no stream, ``connected`` stays False, subscribers
    poll, and it is asked again after a while.
    """

    def __init__(self, facilitator: Facilitator, wiring: Wiring) -> None:
        self.connected = False
        self._facilitator = facilitator
        self._wiring = wiring
        self._refused_until = 0.0
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def subscribe(self, job_uuid: str) -> AsyncIterator[Subscription]:
        """This job's events, for the length of the context.

        On entry the stream is open, or the first attempt to open it has failed.
        """
        self._leave_other_loops()
        subscription = Subscription(self._start)
        self._subscriptions.setdefault(job_uuid, set()).add(subscription)
        try:
            if self._start():
                await self._settled.wait()
            yield subscription
        finally:
            self._forget(job_uuid, subscription)
            if not self._subscriptions:
                await self._stop()

    async def aclose(self) -> None:
        """End the stream and everything that waits on it."""
        self._leave_other_loops()
        for subscription in self._everyone():
            subscription.close()
        await self._stop()

    def _leave_other_loops(self) -> None:
        """Whatever still waits in an event loop that was left behind is nobody's any more."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._task, self._subscriptions = loop, None, {}
            self.connected = False

    def _forget(self, job_uuid: str, subscription: Subscription) -> None:
        sharing = self._subscriptions.get(job_uuid, set())
        sharing.discard(subscription)
        if not sharing:
            self._subscriptions.pop(job_uuid, None)

    def _everyone(self) -> list[Subscription]:
        return [one for sharing in self._subscriptions.values() for one in sharing]

    def _start(self) -> bool:
        """Open the stream unless it is, or would be asked for in vain; whether it is being kept."""
        if self._task is None and self._is_offered():
            self._settled = asyncio.Event()
            self._task = asyncio.create_task(self._run(self._settled), name="compute-horde-events")
        return self._task is not None

    def _is_offered(self) -> bool:
        heard = self._facilitator.known_extensions
        return (heard is None or Extension.EVENTS in heard) and self._wiring.clock() >= self._refused_until

    async def _stop(self) -> None:
        task, self._task = self._task, None
        self.connected = False
        self._settled.set()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, settled: asyncio.Event) -> None:
        last_id, failures = "", 0
        try:
            while self._wiring.clock() >= self._refused_until:
                parser, asked = SSEParser(last_id), 0.0
                try:
                    async with self._facilitator.stream(EVENTS_PATH, last_id) as response:
                        if self._is_stream(response):
                            self._opened(settled)
                            async for event in read_events(response, parser, self._wiring.stream_silence_s):
                                failures = 0
                                self._deliver(event, last_id)
                                last_id = event.id
                            last_id = parser.last_id
                        else:
                            last_id = ""  # a facilitator that does not know the position would refuse it again
                            asked = retry_after_s(response) or 0.0
                except (ComputeHordeError, *FAILED, EventTooLarge):
                    last_id = parser.last_id
                self._lost(settled)
                failures += 1
                pause = asked or max(parser.retry_s or 0.0, self._wiring.redial(failures))
                await self._wiring.sleep(min(pause, MAX_RETRY_S))
        finally:
            settled.set()
            if self._task is asyncio.current_task():
                self._task = None

    def _is_stream(self, response: httpx.Response) -> bool:
        if is_event_stream(response):
            return True
        if response.status_code in NO_STREAM or response.is_success:
            self._refused_until = self._wiring.clock() + self._wiring.stream_retry_s
        return False

    def _opened(self, settled: asyncio.Event) -> None:
        self.connected = True
        if settled.is_set():  # the subscribers of the first opening look at their jobs anyway
            self._mark_stale(self._everyone())
        settled.set()

    def _lost(self, settled: asyncio.Event) -> None:
        if self.connected:
            self._mark_stale(self._everyone())
        self.connected = False
        settled.set()

    def _deliver(self, event: ServerSentEvent, last_id: str) -> None:
        match event.event:
            case "status":
                self._deliver_status(event, last_id)
            case "queue":
                self._deliver_place(event)

    def _deliver_place(self, event: ServerSentEvent) -> None:
        try:
            change = place_change_of(JobQueueEvent.model_validate_json(event.data))
        except ValidationError:  # the next one, or the next look, tells
            return
        for subscription in self._subscriptions.get(change.job_uuid, ()):
            subscription.push(change)

    def _deliver_status(self, event: ServerSentEvent, last_id: str) -> None:
        try:
            change = change_of(JobEvent.model_validate_json(event.data))
        except ValidationError:
            self._mark_stale(self._everyone())
            return
        concerned = self._subscriptions.get(change.job_uuid, ())
        if _is_behind(event.id, last_id):  # out of order, or a history that was begun anew: the job itself tells
            self._mark_stale(concerned)
            return
        for subscription in concerned:
            subscription.push(change)

    @staticmethod
    def _mark_stale(subscriptions: Iterable[Subscription]) -> None:
        for subscription in subscriptions:
            subscription.mark_stale()


def _is_behind(event_id: str, last_id: str) -> bool:
    numbers = event_id.isdecimal() and last_id.isdecimal()
    return numbers and int(event_id[:20]) < int(last_id[:20])

"""Status changes pushed by the facilitator: one stream per client, shared by everything that waits."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import ValidationError

from compute_horde.protocol.sdk_facilitator import JobEvent
from compute_horde_sdk._internal.exceptions import ComputeHordeConnectionError, ComputeHordeError
from compute_horde_sdk._internal.port import StatusChange
from compute_horde_sdk._internal.wire.http import Facilitator
from compute_horde_sdk._internal.wire.reading import change_of
from compute_horde_sdk._internal.wire.sse import EventTooLarge, ServerSentEvent, SSEParser
from compute_horde_sdk._internal.wiring import Wiring

EVENTS_PATH = "/api/v1/events/"
NO_STREAM = frozenset({404, 405, 406, 410, 501})
MAX_RETRY_S = 30.0


class Subscription:
    """One waiter's share of the stream."""

    def __init__(self) -> None:
        self._events: deque[StatusChange] = deque()
        self._stale = False
        self._closed = False
        self._wake = asyncio.Event()

    def push(self, event: StatusChange) -> None:
        self._events.append(event)
        self._wake.set()

    def mark_stale(self) -> None:
        """Events may have been missed: the job has to be looked at."""
        self._stale = True
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def refreshing(self) -> None:
        """The job is about to be looked at; what happens from here on counts as new.

        :raises ComputeHordeConnectionError: the client was closed.
        """
        self._check_open()
        self._stale = False

    async def next(self, within_s: float) -> StatusChange | None:
        """The next event; None when the job has to be looked at, at the latest after ``within_s``.

        :raises ComputeHordeConnectionError: the client was closed.
        """
        try:
            async with asyncio.timeout(within_s):
                while not (self._events or self._stale or self._closed):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return None
        self._check_open()
        return None if self._stale else self._events.popleft()

    def _check_open(self) -> None:
        if self._closed:
            raise ComputeHordeConnectionError(
                "the client was closed", code="client_closed", hint="", retryable=False
            )


class EventHub:
    """Keeps the stream open while anyone subscribes.

    A lost stream is opened again where it broke off (``Last-Event-ID``), and then every
    subscriber looks at its job once. Where the facilitator has no stream, ``connected`` stays False and
    subscribers poll.
    """

    def __init__(self, facilitator: Facilitator, wiring: Wiring) -> None:
        self.connected = False
        self._facilitator = facilitator
        self._wiring = wiring
        self._unsupported = False
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()

    @asynccontextmanager
    async def subscribe(self, job_uuid: str) -> AsyncIterator[Subscription]:
        """This job's events, for the length of the context.

        On entry the stream is open, or the first attempt to open it has failed.
        """
        subscription = Subscription()
        self._subscriptions.setdefault(job_uuid, set()).add(subscription)
        try:
            if not self._unsupported:
                self._start()
                await self._settled.wait()
            yield subscription
        finally:
            self._forget(job_uuid, subscription)
            if not self._subscriptions:
                await self._stop()

    async def aclose(self) -> None:
        """End the stream and everything that waits on it."""
        for subscription in self._everyone():
            subscription.close()
        await self._stop()

    def _forget(self, job_uuid: str, subscription: Subscription) -> None:
        sharing = self._subscriptions[job_uuid]
        sharing.discard(subscription)
        if not sharing:
            del self._subscriptions[job_uuid]

    def _everyone(self) -> list[Subscription]:
        return [one for sharing in self._subscriptions.values() for one in sharing]

    def _start(self) -> None:
        if self._task is None:
            self._settled = asyncio.Event()
            self._task = asyncio.create_task(self._run(self._settled), name="compute-horde-events")

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
            while not self._unsupported:
                parser = SSEParser(last_id)
                try:
                    async with self._facilitator.stream(EVENTS_PATH, last_id) as response:
                        if self._is_stream(response):
                            self._opened(settled)
                            async for event in _events(response, parser):
                                last_id, failures = event.id, 0
                                self._deliver(event)
                        else:
                            last_id = ""  # a facilitator that does not know the position would refuse it again
                except (ComputeHordeError, httpx.HTTPError, httpx.StreamError, EventTooLarge, TimeoutError):
                    pass
                self._lost(settled)
                failures += 1
                await self._wiring.sleep(min(parser.retry_s or self._wiring.backoff(failures), MAX_RETRY_S))
        finally:
            settled.set()

    def _is_stream(self, response: httpx.Response) -> bool:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if response.status_code == 200 and kind == "text/event-stream":
            return True
        self._unsupported = response.status_code in NO_STREAM or response.is_success
        return False

    def _opened(self, settled: asyncio.Event) -> None:
        self.connected = True
        if settled.is_set():  # the subscribers of the first opening look at their jobs anyway
            for subscription in self._everyone():
                subscription.mark_stale()
        settled.set()

    def _lost(self, settled: asyncio.Event) -> None:
        if self.connected:
            for subscription in self._everyone():
                subscription.mark_stale()
        self.connected = False
        settled.set()

    def _deliver(self, event: ServerSentEvent) -> None:
        if event.event != "status":
            return
        try:
            change = change_of(JobEvent.model_validate_json(event.data))
        except ValidationError:
            for subscription in self._everyone():
                subscription.mark_stale()
            return
        for subscription in self._subscriptions.get(change.job_uuid, ()):
            subscription.push(change)


async def _events(response: httpx.Response, parser: SSEParser) -> AsyncIterator[ServerSentEvent]:
    async for chunk in response.aiter_bytes():
        for event in parser.feed(chunk):
            yield event

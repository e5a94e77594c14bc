"""The executor's side of the WebSocket to its miner: one conversation that outlives its connections (G47)."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import structlog

from compute_horde.executor.counting import Counting
from compute_horde.executor.timing import Clocks
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, MalformedFrame, Message, parse_frame
from compute_horde.protocol.control import (
    MAX_LOGS_WAITING,
    V0CancelJobRequest,
    V0JobLogsRequest,
    V0JobLogsResponse,
)
from compute_horde.protocol.extensions import Extension, announced, announcement
from compute_horde.protocol.miner_executor import EXECUTOR_PATH, MINER_TO_EXECUTOR
from compute_horde.protocol.validator_miner import GenericError, V0InitialJobRequest, V0JobRequest
from compute_horde.telemetry.vocabulary import Refusal
from compute_horde.transport.backoff import backoff
from compute_horde.transport.channel import Channel, ChannelClosed, Dialer, DialFailed

log = structlog.get_logger(__name__)

REDIAL_SECONDS = 60
CLOSE_GRACE_SECONDS = 0.5
LAST_ANSWERS_CHARS = 512 * 1024
"""Output that followers may get while the last message waits."""

REDIAL_PAUSE_SECONDS = 0.5
"""The longest pause between two dials: a miner that is back waits no longer for its executors."""

STORED_CODE = 1000
"""With it a miner closes once it has stored the last message; one that is about to stop closes with another."""

_ORDERLY = (1000, 1001)
"""What that is from a miner that announces nothing: it may say no more of the last message."""

T = TypeVar("T")

Heard = Callable[[Message, str], None]
"""Told of the first initial request, job request and wish to cancel, with the frame as it came."""


class LinkLost(ConnectionError):  # noqa: N818 - an event
    """The miner cannot be reached any more, or does not know this token: there is no job to go on with."""


class LogSource(Protocol):
    """What answers the miner's requests for output."""

    def ask(self, request: V0JobLogsRequest) -> None:
        """A request came. Its answer goes to :meth:`MinerLink.answer`."""
        ...

    def drop(self) -> None:
        """Nobody waits any more: the connection is gone."""
        ...


class MinerLink:
    """Messages of one job. Those sent are repeated on a new connection; repeated requests are dropped.

    Answers about output are not: they go out when no message waits, on the connection that asked, or never.
    """

    def __init__(
        self,
        dialer: Dialer,
        miner_url: str,
        token: str,
        redial_s: float = REDIAL_SECONDS,
        *,
        clocks: Clocks | None = None,
        heard: Heard | None = None,
        counting: Counting | None = None,
    ) -> None:
        self._dialer, self._url = dialer, miner_url.rstrip("/") + EXECUTOR_PATH + token
        self._token, self._redial_s = token, redial_s
        self._clocks, self._heard = clocks or Clocks(), heard or _forget
        self._counting = counting or Counting()
        self._persist_until = 0.0
        loop = asyncio.get_running_loop()
        self._initial: asyncio.Future[V0InitialJobRequest] = loop.create_future()
        self._job: asyncio.Future[V0JobRequest] = loop.create_future()
        self._cancel: asyncio.Future[None] = loop.create_future()
        self._outbox: list[str] = []
        self._sent = 0
        self._answers: deque[str] = deque(maxlen=MAX_LOGS_WAITING)
        self._source: LogSource | None = None
        self._extensions: frozenset[Extension] = frozenset()
        self._acknowledges = self._greeted = False
        self._more, self.finished = asyncio.Event(), False
        self._served = asyncio.create_task(self._serve())

    def persist(self, until: float) -> None:
        """Look for a lost miner until this moment (``elapsed``), and for ``redial_s`` at least; so long, too, wait
        for a miner that has got the last message and does not say that it is stored.
        """
        self._persist_until = until

    def restore(self, initial: str | None, job: str | None, *, cancelled: bool) -> None:
        """What an earlier executor was told by the miner, which may be away now. Unreadable, it is waited for."""
        for frame in (initial, job):
            if frame is not None:
                with contextlib.suppress(MalformedFrame):
                    self._request(parse_frame(MINER_TO_EXECUTOR, frame))
        if cancelled:
            _settle(self._cancel, None)

    @property
    def has_job(self) -> bool:
        """Whether the full job request has come."""
        return self._job.done()

    async def initial(self) -> V0InitialJobRequest:
        """The initial request. :raises LinkLost:"""
        return await self._or_lost(self._initial)

    async def job(self) -> V0JobRequest:
        """The job request. :raises LinkLost:"""
        return await self._or_lost(self._job)

    async def cancelled(self) -> None:
        """Wait until the job is cancelled."""
        await asyncio.shield(self._cancel)

    async def lost(self) -> None:
        """Wait for the loss of the link. :raises LinkLost: always, unless cancelled."""
        await asyncio.shield(self._served)
        raise LinkLost("the conversation is over")

    def send(self, message: Message) -> None:
        """Queue a message: it goes out on this connection, or again on the next."""
        self._outbox.append(message.to_frame())
        self._more.set()

    def follow(self, source: LogSource) -> None:
        """Let ``source`` answer requests for output from now on."""
        self._source = source

    def answer(self, response: V0JobLogsResponse) -> None:
        """Queue an answer; without a connection that can take it, or after the last message, it is dropped."""
        if Extension.LOGS in self._extensions and not self.finished:
            self._answers.append(response.to_frame())
            self._more.set()

    def finish(self, last: Message | str) -> None:
        """Queue the last message, or its frame; nothing may follow it, and few answers may go before it."""
        while sum(len(answer) for answer in self._answers) > LAST_ANSWERS_CHARS:
            self._answers.popleft()
        self.finished = True
        self._outbox.append(last if isinstance(last, str) else last.to_frame())
        self._more.set()

    async def drained(self) -> None:
        """After :meth:`finish`: return when the last message has been delivered, or never can be."""
        await asyncio.wait({self._served})

    async def drained_within(self, seconds: float) -> bool:
        """Like :meth:`drained`, for so long; whether it came to that."""
        await asyncio.wait({self._served}, timeout=seconds)
        return self._served.done()

    async def close(self) -> None:
        self._served.cancel()
        await asyncio.wait({self._served})
        if not self._served.cancelled():
            self._served.exception()

    async def _or_lost(self, wanted: "asyncio.Future[T]") -> T:
        if wanted.done():  # at once: a deadline that has passed must not be taken for a missing answer
            return wanted.result()
        either: set[asyncio.Future[Any]] = {wanted, self._served}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        self._served.result()
        raise LinkLost("the conversation is over")

    async def _serve(self) -> None:
        pauses, since = _redials(), self._clocks.elapsed()
        for number in itertools.count():
            channel = await self._dial()
            if number:
                self._counting.reconnected()
            try:
                await self._converse(channel)
            except ChannelClosed as closed:
                if self._is_stored(closed):
                    return
                log.info("the connection to the miner broke; dialling again", code=closed.code)
            else:
                return
            finally:
                await channel.close()
            if self._greeted:
                pauses, since = _redials(), self._clocks.elapsed()
            elif self._clocks.elapsed() >= max(self._persist_until, since + self._redial_s):
                raise LinkLost("the miner hangs up at once")
            else:  # as one that is stopping does to everybody until it listens no more
                await asyncio.sleep(next(pauses))

    def _is_stored(self, closed: ChannelClosed) -> bool:
        """Whether the miner has closed because it has the last message."""
        if not self.finished or self._sent < len(self._outbox):
            return False
        return closed.code == STORED_CODE if self._acknowledges else closed.code in _ORDERLY

    async def _dial(self) -> Channel:
        since = self._clocks.elapsed()
        pauses = _redials()
        while True:
            until = max(self._persist_until, since + self._redial_s)
            try:
                async with self._clocks.timeout_at(min(until, self._clocks.elapsed() + self._redial_s)):
                    return await self._dialer.dial(
                        self._url, headers=announcement(), max_frame_bytes=MAX_MINER_FRAME_BYTES
                    )
            except (DialFailed, TimeoutError) as error:
                log.debug("cannot reach the miner", why=type(error.__cause__ or error).__name__)
            if (left := until - self._clocks.elapsed()) <= 0:
                raise LinkLost("the miner cannot be reached")
            await asyncio.sleep(min(next(pauses), left))

    async def _converse(self, channel: Channel) -> None:
        """Send and receive until the last message is away. :raises ChannelClosed, LinkLost:"""
        self._sent, self._greeted = 0, False
        self._extensions = announced(channel.peer_headers)
        self._acknowledges = bool(self._extensions)
        sender, receiver = asyncio.create_task(self._send_all(channel)), asyncio.create_task(self._listen(channel))
        try:
            await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
            if receiver.done():
                receiver.result()
            if sender.exception() is not None:
                await _last_words(receiver)
            sender.result()
            await self._stored(receiver)
        finally:
            await _cancel(sender, receiver)
            self._hang_up()

    async def _stored(self, receiver: "asyncio.Task[None]") -> None:
        """Wait for what the miner makes of the last message. :raises ChannelClosed, LinkLost:"""
        if not self._acknowledges:
            await _last_words(receiver)
            return
        try:
            async with self._clocks.timeout_at(max(self._persist_until, self._clocks.elapsed() + self._redial_s)):
                await receiver
        except TimeoutError:
            raise LinkLost("the miner does not say that it has stored the result") from None

    def _hang_up(self) -> None:
        """Whoever asked for output over the connection that ended asks again, if at all."""
        self._extensions = frozenset()
        self._answers.clear()
        if self._source is not None:
            self._source.drop()

    async def _send_all(self, channel: Channel) -> None:
        while True:
            self._more.clear()
            while self._sent < len(self._outbox) or self._answers:
                await self._send_next(channel)
            if self.finished:
                return
            await self._more.wait()

    async def _send_next(self, channel: Channel) -> None:
        """Messages before answers; only the very last one comes behind those that are ready."""
        left = len(self._outbox) - self._sent
        if self._answers and (left == 0 or (self.finished and left == 1)):
            await channel.send(self._answers.popleft())
        else:
            await channel.send(self._outbox[self._sent])
            self._sent += 1

    async def _listen(self, channel: Channel) -> None:
        for number in itertools.count():
            frame = await channel.receive()
            self._greeted = True
            try:
                message = parse_frame(MINER_TO_EXECUTOR, frame)
            except MalformedFrame as error:
                log.warning("the miner sent a frame that makes no sense", error=str(error))
                self._counting.refused(Refusal.MALFORMED)
                continue
            match message:
                case V0InitialJobRequest() | V0JobRequest():
                    if self._request(message):
                        self._heard(message, frame)
                case V0CancelJobRequest():
                    if self._is_ours(message.job_uuid) and _settle(self._cancel, None):
                        self._heard(message, frame)
                case V0JobLogsRequest():
                    if self._is_ours(message.job_uuid) and self._source is not None:
                        self._source.ask(message)
                case GenericError():
                    if number == 0 or not self._initial.done():
                        raise LinkLost("the miner does not know this executor's token")
                    log.warning("the miner reported an error", details=self._without_token(message))

    def _request(self, message: Message) -> bool:
        """Take a request; whether it is the first of its kind."""
        match message:
            case V0InitialJobRequest():
                return _settle(self._initial, message)
            case V0JobRequest():
                return _settle(self._job, message)
        return False

    def _is_ours(self, job_uuid: str) -> bool:
        """Whether a message is about this job, which the initial request names."""
        ours = self._initial.done() and self._initial.result().job_uuid == job_uuid
        if not ours:
            log.warning("the miner speaks of another job", other=job_uuid[:64])
            self._counting.refused(Refusal.NOT_OURS)
        return ours

    def _without_token(self, message: GenericError) -> str:
        return (message.details or "").replace(self._token, "<token>")[:500]


def _forget(message: Message, frame: str) -> None:
    """A :data:`Heard` for those who keep nothing."""


def _redials() -> Iterator[float]:
    return backoff(first_s=0.05, cap_s=REDIAL_PAUSE_SECONDS)


async def _last_words(receiver: "asyncio.Task[None]") -> None:
    """What the miner says before it closes, or has said before it closed: it may tell why."""
    await asyncio.wait({receiver}, timeout=CLOSE_GRACE_SECONDS)
    if receiver.done():
        receiver.result()


def _settle(future: "asyncio.Future[T]", value: T) -> bool:
    """Whether this is the first value."""
    if future.done():
        return False
    future.set_result(value)
    return True


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()

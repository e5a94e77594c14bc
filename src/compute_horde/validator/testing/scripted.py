"""A facilitator and a miner that do as a test tells them, over the in-memory transport."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any

from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, Message, parse_frame
from compute_horde.protocol.control import V0JobLogsResponse
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.extensions import LINK_EXTENSIONS, Extension, announcement
from compute_horde.protocol.facilitator_validator import (
    VALIDATOR_TO_FACILITATOR,
    Response,
    V0AuthenticationRequest,
    V0ExplainJobResponse,
    V0Heartbeat,
    V0JobStatusUpdate,
    V0QueueUpdate,
    V2JobRequest,
)
from compute_horde.protocol.scheduling import QueuedJob
from compute_horde.protocol.signing import Signature, SignatureScope, Signer, sign_payload
from compute_horde.protocol.validator_miner import VALIDATOR_TO_MINER, V0ExecutorManifestRequest
from compute_horde.transport.channel import Channel, ChannelClosed
from compute_horde.transport.memory import MemoryDialer

UNSIGNED = Signature(signatory="", timestamp_ns=0, signature="")


def job_request(uuid: str, signer: Signer, *, timestamp_ns: int | None = None, **changes: Any) -> V2JobRequest:
    """A job request, signed by its user. Limits are zero: a test's leeway is all the time there is."""
    fields: dict[str, Any] = {
        "signature": UNSIGNED,
        "uuid": uuid,
        "executor_class": ExecutorClass.always_on__test,
        "docker_image": "alpine:3.19",
        "args": ["echo", "hi"],
        "env": {"B": "2", "A": "1"},
        "download_time_limit": 0,
        "execution_time_limit": 0,
        "upload_time_limit": 0,
        "streaming_start_time_limit": 0,
    } | changes
    request = V2JobRequest(**fields)
    moment = time.time_ns() if timestamp_ns is None else timestamp_ns
    signature = sign_payload(signer, request.signed_fields().payload(), SignatureScope.SIGNED_FIELDS, moment)
    return request.model_copy(update={"signature": signature})


class ScriptedFacilitator:
    """Accepts validators, acknowledges statuses, and keeps what it has seen.

    ``silent``: statuses are taken in, not acknowledged. ``answers``: what to answer instead of success, by status.
    ``extensions``: what it announces from the next :meth:`plug` on.
    """

    def __init__(self, dialer: MemoryDialer, url: str) -> None:
        self.headers: list[Mapping[str, str]] = []
        self.authentications: list[V0AuthenticationRequest] = []
        self.statuses: list[V0JobStatusUpdate] = []
        self.logs: list[V0JobLogsResponse] = []
        self.places: list[QueuedJob] = []
        self.explanations: list[V0ExplainJobResponse] = []
        self.extensions: Iterable[Extension] = LINK_EXTENSIONS
        self.heartbeats = 0
        self.silent = False
        self.answers: dict[str, Response] = {}
        self.channel: Channel | None = None
        self.max_frame_bytes = MAX_MINER_FRAME_BYTES
        self._dialer, self._url = dialer, url
        self._changed = asyncio.Condition()
        self.plug()

    def plug(self) -> None:
        self._dialer.serve(self._url, self.accept, announcement(self.extensions))

    async def unplug(self) -> None:
        """Break the connection and refuse new ones until :meth:`plug`."""
        self._dialer.unplug(self._url)
        await self.drop()

    async def drop(self) -> None:
        if self.channel is not None:
            await self.channel.close(1006)

    async def push(self, message: Message | str) -> None:
        assert self.channel is not None  # noqa: S101 - a test that pushes has waited for the validator
        await self.channel.send(message if isinstance(message, str) else message.to_frame())

    def history(self, uuid: str) -> list[str]:
        """The statuses of a job, repetitions included, in order of arrival."""
        return [update.status.value for update in self.statuses if update.uuid == uuid]

    async def until(self, true: Callable[[], bool], timeout_s: float = 10) -> None:
        """Wait until something has become true of what was received."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(true)

    async def wait_for(self, uuid: str, status: str, timeout_s: float = 10) -> V0JobStatusUpdate:
        """The job's update with this status, once it has arrived."""

        def found() -> V0JobStatusUpdate | None:
            mine = (u for u in self.statuses if u.uuid == uuid and u.status.value == status)
            return next(mine, None)

        async with asyncio.timeout(timeout_s), self._changed:
            update = await self._changed.wait_for(found)
        assert update is not None  # noqa: S101 - that is what was waited for
        return update

    async def accept(self, _url: str, headers: Mapping[str, str], channel: Channel) -> None:
        self.headers.append(headers)
        self.channel = channel
        try:
            while True:
                frame = await channel.receive()
                if len(frame.encode()) > self.max_frame_bytes:
                    await channel.close(1009)
                    return
                await self._take(parse_frame(VALIDATOR_TO_FACILITATOR, frame), channel)
        except ChannelClosed:
            return

    async def _take(self, message: Message, channel: Channel) -> None:
        answer = Response(status="success")
        match message:
            case V0AuthenticationRequest():
                self.authentications.append(message)
                await self._wake()
                answer = self.answers.get("authentication", answer)
            case V0Heartbeat():
                self.heartbeats += 1
                await self._wake()
                return
            case V0JobLogsResponse():
                self.logs.append(message)
                await self._wake()
                return
            case V0QueueUpdate():
                self.places += message.jobs
                await self._wake()
                return
            case V0ExplainJobResponse():
                self.explanations.append(message)
                await self._wake()
                return
            case V0JobStatusUpdate():
                self.statuses.append(message)
                await self._wake()
                if self.silent:
                    return
                answer = self.answers.get(message.status.value, answer)
        await channel.send(answer.to_frame())

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class MinerConnection:
    """One connection of a validator to a scripted miner. ``headers``: of the validator's request."""

    def __init__(self, url: str, headers: Mapping[str, str], channel: Channel, seen: list[Message]) -> None:
        self.url, self.headers, self.channel, self.seen = url, headers, channel, seen

    async def send(self, *messages: Message | str) -> None:
        for message in messages:
            await self.channel.send(message if isinstance(message, str) else message.to_frame())

    async def expect(self, kind: type[Any]) -> Any:
        """The next message, which must be of this kind."""
        message = parse_frame(VALIDATOR_TO_MINER, await self.channel.receive())
        self.seen.append(message)
        if not isinstance(message, kind):
            raise AssertionError(f"expected {kind.__name__}, got {message!r}")
        return message

    async def manifest(self, count: int = 10) -> None:
        """``count`` executors; unless a script pushes how many are free, the validator does the subtraction."""
        await self.send(V0ExecutorManifestRequest(manifest={ExecutorClass.always_on__test: count}))


Script = Callable[[MinerConnection], Awaitable[object]]


class ScriptedMiner:
    """Plays one script per connection, the last one again and again; what fails in one is in :attr:`errors`.

    ``extensions``: what it announces; none for a miner of the existing network.
    """

    def __init__(
        self,
        dialer: MemoryDialer,
        prefix: str,
        *scripts: Script,
        extensions: Iterable[Extension] = LINK_EXTENSIONS,
    ) -> None:
        self.seen: list[Message] = []
        self.urls: list[str] = []
        self.errors: list[BaseException] = []
        self.idle = asyncio.Event()  # no script is being played
        self.idle.set()
        self._playing = 0
        self._scripts = list(scripts)
        dialer.serve(prefix, self.accept, announcement(extensions))

    async def accept(self, url: str, headers: Mapping[str, str], channel: Channel) -> None:
        self.urls.append(url)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self._playing += 1
        self.idle.clear()
        try:
            await script(MinerConnection(url, headers, channel, self.seen))
        except ChannelClosed:
            pass
        except AssertionError as error:
            self.errors.append(error)
            await channel.close(1011)
        finally:
            self._playing -= 1
            if self._playing == 0:
                self.idle.set()


@asynccontextmanager
async def running(*services: Any) -> AsyncIterator[None]:
    """Services started for the length of a block."""
    for service in services:
        await service.start()
    try:
        yield
    finally:
        for service in services:
            await service.stop()


def no_pauses() -> Iterator[float]:
    """Attempts follow each other at once, save for one turn of the loop."""
    return repeat(0.0)

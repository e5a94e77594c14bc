"""A miner of one job, over memory channels: what an executor's tests talk to."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from compute_horde.protocol.base import Message, parse_frame
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.enums import DockerPreset, ExecutorClass
from compute_horde.protocol.extensions import LINK_EXTENSIONS, Extension, announced, announcement
from compute_horde.protocol.miner_executor import EXECUTOR_TO_MINER, executor_token
from compute_horde.protocol.receipts import JobStartedPayload
from compute_horde.protocol.validator_miner import (
    ExecutorTiming,
    GenericError,
    V0ExecutorReadyRequest,
    V0HordeFailedRequest,
    V0InitialJobRequest,
    V0JobFailedRequest,
    V0JobFinishedRequest,
    V0JobRequest,
)
from compute_horde.transport.channel import Channel, ChannelClosed
from compute_horde.transport.memory import MemoryDialer

LAST = (V0JobFinishedRequest, V0JobFailedRequest, V0HordeFailedRequest)
TIMING = ExecutorTiming(allowed_leeway=5, download_time_limit=20, execution_time_limit=20, upload_time_limit=20)


def initial_request(job_uuid: str, /, **fields: Any) -> V0InitialJobRequest:
    """An initial request with limits that no ordinary job meets."""
    executor_class = ExecutorClass.always_on__test
    receipt = JobStartedPayload(
        job_uuid=job_uuid,
        miner_hotkey="miner",
        validator_hotkey="validator",
        timestamp=datetime(2025, 1, 1, tzinfo=UTC),
        executor_class=executor_class,
        is_organic=True,
        ttl=60,
    )
    defaults = {
        "job_uuid": job_uuid,
        "executor_class": executor_class,
        "docker_image": "image",
        "job_started_receipt_payload": receipt,
        "job_started_receipt_signature": "0x00",
        "executor_timing": TIMING,
    }
    return V0InitialJobRequest(**{**defaults, **fields})


def job_request(job_uuid: str, /, **fields: Any) -> V0JobRequest:
    """The request that follows."""
    defaults = {
        "job_uuid": job_uuid,
        "executor_class": ExecutorClass.always_on__test,
        "docker_image": "image",
        "docker_run_options_preset": DockerPreset.NONE,
        "docker_run_cmd": [],
    }
    return V0JobRequest(**{**defaults, **fields})


class FakeMiner:
    """Hands out one job to whoever brings its token, and keeps what the executor says.

    ``drop_after``: names of messages after which the connection breaks, once each. ``extensions``: what it
    announces; ``announced`` is what the executor did. Answers about output are kept apart, in ``logs``.
    ``handed_out``: another executor has had the whole job before.
    """

    url = "ws://miner"

    def __init__(
        self,
        initial: Mapping[str, Any] | None = None,
        job: Mapping[str, Any] | None = None,
        drop_after: tuple[str, ...] = (),
        extensions: Iterable[Extension] = LINK_EXTENSIONS,
        *,
        handed_out: bool = False,
    ) -> None:
        self.job_uuid = str(uuid.uuid4())
        self.token = executor_token(self.job_uuid, str(uuid.uuid4()))
        self._initial = initial_request(self.job_uuid, **(initial or {}))
        self._job = job_request(self.job_uuid, **(job or {}))
        self._drop_after, self._handed_out = list(drop_after), handed_out
        self.connections: list[list[Message]] = []
        self.dialer = MemoryDialer()
        self.dialer.serve(self.url, self._accept, announcement(extensions))
        self.refuses, self.is_over = False, asyncio.Event()
        self.announced: frozenset[Extension] = frozenset()
        self.logs: list[V0JobLogsResponse] = []
        self._channel: Channel | None = None
        self._news = asyncio.Event()

    @property
    def messages(self) -> list[Message]:
        """What came over the last connection."""
        return self.connections[-1] if self.connections else []

    @property
    def last(self) -> Any:
        return self.messages[-1]

    def names(self) -> list[str]:
        return [type(message).__name__ for message in self.messages]

    async def say(self, message: Message) -> None:
        """Send something on the connection that is there."""
        if self._channel is None:
            raise RuntimeError("no executor is connected")
        await self._channel.send(message.to_frame())

    async def cancel(self) -> None:
        await self.say(V0CancelJobRequest(job_uuid=self.job_uuid))

    async def ask(self, position: int, request_id: str = "") -> None:
        """Ask for output; the answer comes to ``logs``."""
        request_id = request_id or str(uuid.uuid4())
        await self.say(V0JobLogsRequest(job_uuid=self.job_uuid, request_id=request_id, position=position))

    async def read(self, position: int) -> V0JobLogsResponse:
        """Ask for output and wait for the answer."""
        await self.ask(position, request_id := str(uuid.uuid4()))
        while not (found := [one for one in self.logs if one.request_id == request_id]):
            await self._heard()
        return found[0]

    async def reached(self, name: str) -> None:
        """Wait until a message of this type has come over the last connection."""
        while name not in self.names():
            await self._heard()

    async def _heard(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _accept(self, url: str, headers: Mapping[str, str], channel: Channel) -> None:
        if self.refuses or not url.endswith(f"/v0.1/executor_interface/{self.token}"):
            await channel.send(GenericError(details=f"No job waiting for token {self.token}").to_frame())
            await channel.close()
            return
        received: list[Message] = []
        self.connections.append(received)
        self._channel, self.announced = channel, announced(headers)
        try:
            if self._handed_out:
                await channel.send(self._job.to_frame())
            await channel.send(self._initial.to_frame())
            await self._converse(channel, received)
        except ChannelClosed:
            return

    async def _converse(self, channel: Channel, received: list[Message]) -> None:
        while True:
            message = parse_frame(EXECUTOR_TO_MINER, await channel.receive())
            self._news.set()
            if isinstance(message, V0JobLogsResponse):
                self.logs.append(message)
                continue
            received.append(message)
            name = type(message).__name__
            if name in self._drop_after:
                self._drop_after.remove(name)
                await channel.close(1006)
                return
            if isinstance(message, V0ExecutorReadyRequest):
                await channel.send(self._job.to_frame())
            if isinstance(message, LAST):
                self.is_over.set()
                await channel.close()
                return

"""One job's connection to its miner (sections 6.1 to 6.4)."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from compute_horde.chain.port import MinerEndpoint
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, MalformedFrame, Message, parse_frame
from compute_horde.protocol.compat.executors import executor_failed, streaming_not_ready
from compute_horde.protocol.control import (
    MAX_LOGS_FRAME_BYTES,
    MAX_LOGS_WAITING,
    V0JobLogsRequest,
    V0JobLogsResponse,
)
from compute_horde.protocol.extensions import Extension, announced, announcement
from compute_horde.protocol.scheduling import attempt_uuid
from compute_horde.protocol.signing import Signer
from compute_horde.protocol.validator_miner import (
    MINER_TO_VALIDATOR,
    VALIDATOR_PATH,
    GenericError,
    MinerToValidator,
    UnauthorizedError,
    V0AcceptJobRequest,
    V0DeclineJobRequest,
    V0ExecutionDoneRequest,
    V0ExecutorFailedRequest,
    V0ExecutorManifestRequest,
    V0ExecutorReadyRequest,
    V0FreeExecutorsRequest,
    V0HordeFailedRequest,
    V0JobFailedRequest,
    V0JobFinishedRequest,
    V0MachineSpecsRequest,
    V0MainHotkeyMessage,
    V0StreamingJobNotReadyRequest,
    V0StreamingJobReadyRequest,
    V0VolumesReadyRequest,
    ValidatorAuthForMiner,
)
from compute_horde.telemetry.vocabulary import Refusal
from compute_horde.transport.channel import Channel, ChannelClosed, Dialer, DialFailed, DialledChannel
from compute_horde.transport.silence import QUIET_SECONDS
from compute_horde.validator.attempt_logs import answered_of_attempt, asked_of_attempt
from compute_horde.validator.ears import Deaf, Ears
from compute_horde.validator.logs import LogDesk
from compute_horde.validator.routing import Manifest

log = structlog.get_logger(__name__)

JobMessage = (
    V0AcceptJobRequest
    | V0DeclineJobRequest
    | V0ExecutorReadyRequest
    | V0VolumesReadyRequest
    | V0StreamingJobReadyRequest
    | V0ExecutionDoneRequest
    | V0JobFinishedRequest
    | V0JobFailedRequest
    | V0HordeFailedRequest
)


INBOX_MESSAGES = 16

Switchboard = dict[tuple[str, str], "MinerLink"]
"""The links by miner hotkey and job. After a reconnection a miner may say on one job's connection what is about
another one of the same validator, so each link passes on what belongs to a sibling."""


Locate = Callable[[MinerEndpoint], MinerEndpoint]


def ignored(_: Refusal) -> None:
    """Nobody counts."""


class MinerLink:
    """Opened, and after a loss opened again; every opening is authenticated anew (G52)."""

    def __init__(
        self,
        dialer: Dialer,
        signer: Signer,
        miner: MinerEndpoint,
        job_uuid: str,
        switchboard: Switchboard,
        logs: LogDesk,
        locate: Locate | None = None,
        *,
        attempt: int = 1,
        ears: Ears | None = None,
        refused: Callable[[Refusal], None] = ignored,
    ) -> None:
        """``logs``: takes the miner's answers to requests for output, and hears of lost connections.

        ``locate``: where the miner is now; it may have moved since the job was given to it. ``attempt``: which of
        the job's; towards the miner it has a name of its own. ``ears``: hears what the miner says of itself.
        ``refused``: counts what is not acted upon.
        """
        self.extensions: frozenset[Extension] | None = None
        """What the miner announced when it was last reached; None before the first time."""
        self._locate = locate
        self._dialer, self._signer, self.miner, self._job_uuid = dialer, signer, miner, job_uuid
        self._attempt, self._ears, self._refused = attempt, ears or Deaf(), refused
        self.name = attempt_uuid(job_uuid, attempt) if job_uuid else ""
        self._channel: DialledChannel | None = None
        self._sending = asyncio.Lock()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._logs = logs
        self._questions: asyncio.Queue[V0JobLogsRequest] = asyncio.Queue()
        self._inbox: asyncio.Queue[JobMessage | ChannelClosed] = asyncio.Queue(INBOX_MESSAGES)
        self._manifest: asyncio.Future[Manifest | None] | None = None
        self._switchboard = switchboard
        switchboard[miner.hotkey, self.name] = self
        self.log = log.bind(job=job_uuid, attempt=attempt, miner=miner.hotkey)

    async def open(self, timeout_s: float) -> None:
        """:raises DialFailed: the miner cannot be reached, or closed at once."""
        await self.drop()
        if self._locate is not None:
            self.miner = self._locate(self.miner)
        host = f"[{self.miner.address}]" if ":" in self.miner.address else self.miner.address
        url = f"ws://{host}:{self.miner.port}{VALIDATOR_PATH}{self._signer.ss58_address}"
        try:
            async with asyncio.timeout(timeout_s):
                channel = await self._dialer.dial(
                    url, headers=announcement(), max_frame_bytes=MAX_MINER_FRAME_BYTES, timeout_s=timeout_s
                )
                self._channel = channel
                auth = ValidatorAuthForMiner.make(self._signer, self.miner.hotkey, int(time.time()))
                await channel.send(auth.to_frame())
        except (ChannelClosed, TimeoutError) as error:
            await self.drop()
            self._ears.lost(self.miner.hotkey)
            raise DialFailed(f"{url}: {error!r}") from error
        except DialFailed:
            self._ears.lost(self.miner.hotkey)
            raise
        except asyncio.CancelledError:
            await self.drop()
            raise
        self.extensions = announced(channel.peer_headers)
        self._manifest = asyncio.get_running_loop().create_future()
        self._questions = asyncio.Queue(MAX_LOGS_WAITING)
        self._tasks = (
            asyncio.create_task(self._listen(channel, self._manifest)),
            asyncio.create_task(self._ask(channel, self._questions)),
        )

    async def manifest(self, timeout_s: float) -> Manifest:
        """The miner's first answer. :raises DialFailed: it gave none."""
        if self._manifest is None:
            raise DialFailed("the link is not open")
        done, _ = await asyncio.wait([self._manifest], timeout=timeout_s)
        if not done:
            raise DialFailed("the miner sent no manifest in time")
        if (manifest := self._manifest.result()) is None:
            raise DialFailed("the miner closed the connection without a manifest")
        return manifest

    async def send(self, message: Message) -> None:
        """:raises ChannelClosed: it may not have arrived."""
        if self._channel is None:
            raise ChannelClosed
        await self._send(self._channel, message)

    async def _send(self, channel: Channel, message: Message) -> None:
        async with self._sending:
            await channel.send(message.to_frame())

    def ask_logs(self, request: V0JobLogsRequest) -> bool:
        """See :class:`~compute_horde.validator.logs.Line`."""
        if not self.is_open or Extension.LOGS not in (self.extensions or ()) or self._questions.full():
            return False
        self._questions.put_nowait(asked_of_attempt(request, self._attempt))
        return True

    async def _ask(self, channel: Channel, questions: "asyncio.Queue[V0JobLogsRequest]") -> None:
        with contextlib.suppress(ChannelClosed):  # the listener tells of it
            while True:
                await self._send(channel, await questions.get())

    async def receive(self) -> JobMessage:
        """The next message about this job, in its newest shape. :raises ChannelClosed: open again for more."""
        if self._channel is None and self._inbox.empty():
            raise ChannelClosed
        item = await self._inbox.get()
        if isinstance(item, ChannelClosed):
            raise item
        return item

    @property
    def is_open(self) -> bool:
        """Whether the last opening succeeded and nobody has dropped it since."""
        return self._channel is not None

    @property
    def is_alive(self) -> bool:
        """Whether it is open, and its peer has lately shown that it is there."""
        return self._channel is not None and self._channel.quiet_s < QUIET_SECONDS

    async def drop(self) -> None:
        """Close the connection; the link can be opened again."""
        channel, tasks, self._channel, self._tasks = self._channel, self._tasks, None, ()
        self._logs.lost(self._job_uuid, self)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        """Close for good."""
        if self._switchboard.get((self.miner.hotkey, self.name)) is self:
            del self._switchboard[self.miner.hotkey, self.name]
        await self.drop()

    async def _listen(self, channel: Channel, manifest: "asyncio.Future[Manifest | None]") -> None:
        tells = Extension.CAPACITY in announced(channel.peer_headers)
        if tells:
            self._ears.line_opened(self.miner.hotkey)
        try:
            while True:
                message = await self._hear(channel)
                if isinstance(message, V0ExecutorManifestRequest):
                    self._ears.reached(self.miner.hotkey, message.manifest)
                    if not manifest.done():
                        manifest.set_result(message.manifest)
                elif isinstance(message, V0FreeExecutorsRequest):
                    if tells:
                        self._ears.pushed(self.miner.hotkey, message.free)
                elif isinstance(message, V0JobLogsResponse):
                    self._answer(message)
                    await asyncio.sleep(0)  # a flood of them keeps nobody else from their turn
                elif (about_job := self._sort(message)) is not None:
                    await self._inbox.put(about_job)
        except ChannelClosed as closed:
            if not manifest.done():
                manifest.set_result(None)
            self._logs.lost(self._job_uuid, self)
            await self._inbox.put(closed)
        finally:
            if tells:
                self._ears.line_closed(self.miner.hotkey)

    async def _hear(self, channel: Channel) -> MinerToValidator | None:
        frame = await channel.receive()
        if frame == "PING":
            return None
        try:
            message = parse_frame(MINER_TO_VALIDATOR, frame)
        except MalformedFrame as error:
            self._refused(Refusal.MALFORMED)
            self.log.warning("malformed frame from the miner", error=str(error))
            await self._send(channel, GenericError(details=f"Malformed message: {error}"))
            return None
        if isinstance(message, V0JobLogsResponse) and len(frame.encode()) > MAX_LOGS_FRAME_BYTES:
            self._refused(Refusal.TOO_LARGE)
            self.log.warning("too much output in one answer, dropped")
            return None
        return message

    def _answer(self, response: V0JobLogsResponse) -> None:
        """An answer may come over the connection of another job with the same miner."""
        asked = self._switchboard.get((self.miner.hotkey, response.job_uuid))
        if asked is not None:
            self._logs.answer(answered_of_attempt(response, asked._job_uuid, asked._attempt), asked)

    def _sort(self, message: MinerToValidator | None) -> JobMessage | None:
        """What of it is for this job; the rest is passed on, logged or dropped."""
        match message:
            case (
                None
                | V0ExecutorManifestRequest()
                | V0MainHotkeyMessage()
                | V0MachineSpecsRequest()
                | V0JobLogsResponse()
                | V0FreeExecutorsRequest()
            ):
                return None
            case GenericError() | UnauthorizedError():
                self.log.warning("miner reports an error", details=(message.details or "")[:500])
                return None
            case V0ExecutorFailedRequest():
                modern: JobMessage = executor_failed(message)
            case V0StreamingJobNotReadyRequest():
                modern = streaming_not_ready(message)
            case _:
                modern = message
        if modern.job_uuid == self.name:
            return modern
        self._pass_on(modern)
        return None

    def _pass_on(self, message: JobMessage) -> None:
        sibling = self._switchboard.get((self.miner.hotkey, message.job_uuid))
        if sibling is None:
            self._refused(Refusal.UNKNOWN_JOB)
            self.log.warning("message of another job ignored", other=message.job_uuid[:100])
            return
        try:
            sibling._inbox.put_nowait(message)
        except asyncio.QueueFull:
            self._refused(Refusal.TOO_MANY)
            self.log.warning("too many messages of another job", other=message.job_uuid)

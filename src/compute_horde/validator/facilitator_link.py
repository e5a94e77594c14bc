"""The validator's connection to its facilitator (section 5): opened again for ever, authenticated every time."""

import asyncio
from collections.abc import Callable, Iterator
from importlib.metadata import version

import structlog

from compute_horde.chain.keys import public_key_of
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, MalformedFrame, Message, parse_frame
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.extensions import Extension, announced, announcement
from compute_horde.protocol.facilitator_validator import (
    CLAIMED_ELSEWHERE,
    FACILITATOR_TO_VALIDATOR,
    HEADER_INSTANCE,
    HEADER_MAX_FRAME,
    HEADER_RUNNER_VERSION,
    HEADER_VERSION,
    Response,
    V0AuthenticationRequest,
    V0ExplainJobRequest,
    V0Heartbeat,
    V0JobCheated,
    V2JobRequest,
)
from compute_horde.protocol.signing import Signer, hex_signature
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.telemetry.vocabulary import Peer, Refusal
from compute_horde.transport.channel import Channel, ChannelClosed, Dialer, DialFailed
from compute_horde.validator.answers import AnswerQueue, Tell
from compute_horde.validator.claims import Claims
from compute_horde.validator.logs import Reply
from compute_horde.validator.older import as_older_know_it, is_queued
from compute_horde.validator.outbox import Outbox

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 30
"""A facilitator that has not answered for so long has lost the connection without knowing."""

MESSAGE_TOO_BIG = 1009

AGAIN_SECONDS = 1.0

AGAIN = "job.internal_error"
"""The error of a facilitator that could not store a status just now: it is sent again."""

Order = V2JobRequest | V0JobCheated | V0CancelJobRequest | V0JobLogsRequest | V0ExplainJobRequest

Handler = Callable[[Order, Reply, Tell], None]
"""Takes a frame, and what takes an answer back over the same connection: with output, or of another kind."""


class Refused(ConnectionError):  # noqa: N818 - an event more than an error
    """The facilitator does not let the validator in, or does not answer."""


class FacilitatorLink:
    """Runs until cancelled. What is to be sent waits in the outbox, so that nothing is lost meanwhile."""

    def __init__(
        self,
        url: str,
        signer: Signer,
        dialer: Dialer,
        outbox: Outbox,
        claims: Claims,
        handler: Handler,
        forsaken: Callable[[str], None],
        heartbeat_s: float,
        pauses: Callable[[], Iterator[float]],
        metrics: ValidatorMetrics,
    ) -> None:
        """``forsaken`` is called with a job that another instance of this validator has."""
        self._url, self._signer, self._dialer, self._outbox = url, signer, dialer, outbox
        self._claims, self._forsaken = claims, forsaken
        self._handler, self._heartbeat_s, self._pauses = handler, heartbeat_s, pauses
        self._metrics, self._was_in = metrics, False
        self.instance: str | None = None
        self.connected = asyncio.Event()
        self._session: _Session | None = None
        self.let_in: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Connect, serve, and when the connection is lost connect again (G31)."""
        retries = self._pauses()
        while True:
            was_in = await self._once()
            retries = self._pauses() if was_in else retries
            await asyncio.sleep(next(retries))

    async def _once(self) -> bool:
        """One connection, from dialling to its loss. Answers whether the facilitator had let the validator in."""
        session, was_in = None, False
        try:
            session = _Session(
                await self._dial(),
                self._outbox,
                self._claims,
                self._handler,
                self._forsaken,
                self._heartbeat_s,
                self._metrics,
            )
            self._session = session
            await session.serve(self._authentication(), self._let_in)
        except (DialFailed, ChannelClosed, Refused) as error:
            log.warning("no connection to the facilitator", url=self._url, error=str(error))
        except Exception:
            log.exception("the link to the facilitator failed")
        finally:
            was_in = self.connected.is_set()
            self.connected.clear()
            self._session = None
            if session is not None:
                await session.close()
        return was_in

    def tell(self, message: Message, extension: Extension) -> bool:
        """Send something that need not arrive, to a facilitator that knows of it. Whether there is one."""
        return self.connected.is_set() and self._session is not None and self._session.tell(message, extension)

    def _let_in(self) -> None:
        log.info("connected to the facilitator", url=self._url)
        if self._was_in:
            self._metrics.reconnected(Peer.FACILITATOR)
        self._was_in = True
        self.connected.set()
        self.let_in()

    async def _dial(self) -> Channel:
        release = version("compute-horde")
        headers = {
            HEADER_VERSION: release,
            HEADER_RUNNER_VERSION: release,
            HEADER_MAX_FRAME: str(MAX_MINER_FRAME_BYTES),
            **announcement(),
        }
        if self.instance is not None:
            headers[HEADER_INSTANCE] = self.instance
        return await self._dialer.dial(self._url, headers=headers, max_frame_bytes=MAX_MINER_FRAME_BYTES)

    def _authentication(self) -> V0AuthenticationRequest:
        key = public_key_of(self._signer.ss58_address)
        return V0AuthenticationRequest(public_key=key.hex(), signature=hex_signature(self._signer, key))


class _Session:
    """One authenticated connection: a reader, a heartbeat, and the outbox's only sender.

    Answers with output go beside the statuses, one frame at a time, so that a status waits for one at most.
    """

    def __init__(
        self,
        channel: Channel,
        outbox: Outbox,
        claims: Claims,
        handler: Handler,
        forsaken: Callable[[str], None],
        heartbeat_s: float,
        metrics: ValidatorMetrics,
    ) -> None:
        self._metrics = metrics
        self._channel, self._outbox, self._handler, self._heartbeat_s = channel, outbox, handler, heartbeat_s
        self._claims, self._forsaken = claims, forsaken
        self._extensions = announced(channel.peer_headers)
        self._answer: asyncio.Future[Response] | None = None
        self._sending = asyncio.Lock()
        self._answers: AnswerQueue | None = None  # for a facilitator that asks for more than jobs
        if self._extensions & {Extension.LOGS, Extension.QUEUE, Extension.EXPLAIN}:
            self._answers = AnswerQueue()
        self._on_its_way = False  # a status has been sent and not yet acknowledged

    async def serve(self, authentication: V0AuthenticationRequest, let_in: Callable[[], None]) -> None:
        """:raises ChannelClosed: the connection is gone. :raises Refused: the facilitator does not want us."""
        tasks = {asyncio.create_task(self._read()), asyncio.create_task(self._write(authentication, let_in))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ChannelClosed as closed:
            if closed.code == MESSAGE_TOO_BIG and self._on_its_way:
                log.error("a status is too large for the facilitator, its bulk is left out")
                await self._outbox.shrink()
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        self._answers = None
        await self._channel.close()

    def _reply(self, request: V0JobLogsRequest, answer: V0JobLogsResponse) -> None:
        if self._answers is not None and Extension.LOGS in self._extensions:
            self._answers.put(request, answer)

    def tell(self, message: Message, extension: Extension) -> bool:
        """Whether the facilitator knows of such messages, so that this one is on its way."""
        if self._answers is None or extension not in self._extensions:
            return False
        self._answers.tell(message)
        return True

    async def _read(self) -> None:
        while True:
            frame = await self._channel.receive()
            try:
                message = parse_frame(FACILITATOR_TO_VALIDATOR, frame)
            except MalformedFrame as error:
                self._metrics.refused(Refusal.MALFORMED)
                log.warning("malformed frame from the facilitator dropped", error=str(error))
                continue
            if not isinstance(message, Response):
                self._handler(message, self._reply, self.tell)
            elif self._answer is not None and not self._answer.done():
                self._answer.set_result(message)
            else:
                log.warning("answer without a question dropped", status=message.status)

    async def _write(self, authentication: V0AuthenticationRequest, let_in: Callable[[], None]) -> None:
        answer = await self._ask(authentication.to_frame())
        if answer.status == "error":
            raise Refused(_explain(answer))
        self._claims.connected(self._extensions)
        let_in()
        beside = [asyncio.create_task(self._beat())]
        if self._answers is not None:
            beside.append(asyncio.create_task(self._tell(self._answers)))
        try:
            while True:
                await self._report(*await self._outbox.first())
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _report(self, job_uuid: str, frame: str) -> None:
        """Send one status until it is taken. An error about the job counts as its answer, unless it says to try
        again: sending it again would not help.
        """
        knows = Extension.QUEUE in self._extensions
        if knows or not is_queued(frame):
            frame, pause_s = frame if knows else as_older_know_it(frame), 0.0
            while not await self._is_answered(job_uuid, frame, pause_s):
                pause_s = AGAIN_SECONDS
        self._claims.answered(job_uuid)
        await self._outbox.acknowledge()

    async def _is_answered(self, job_uuid: str, frame: str, pause_s: float) -> bool:
        """Whether the facilitator has taken this status, sent after a pause, or never will."""
        if pause_s:
            await asyncio.sleep(pause_s)
        self._on_its_way = True
        answer = await self._ask(frame)
        self._on_its_way = False
        if answer.status == "success":
            return True
        kinds = {error.type for error in answer.errors}
        if any(kind.startswith("auth.") for kind in kinds):
            raise Refused(_explain(answer))
        log.warning("the facilitator did not take a status", frame=frame[:200], error=_explain(answer))
        if CLAIMED_ELSEWHERE in kinds:
            self._metrics.refused(Refusal.NOT_OURS)
            self._forsaken(job_uuid)
        return AGAIN not in kinds

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            await self._send(V0Heartbeat().to_frame())

    async def _tell(self, answers: AnswerQueue) -> None:
        while True:
            await self._send(await answers.get())

    async def _send(self, frame: str) -> None:
        async with self._sending:
            await self._channel.send(frame)

    async def _ask(self, frame: str) -> Response:
        self._answer = asyncio.get_running_loop().create_future()
        await self._send(frame)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._answer
        except TimeoutError:
            raise Refused(f"no answer within {ANSWER_SECONDS} s") from None
        finally:
            self._answer = None


def _explain(answer: Response) -> str:
    return "; ".join(f"{error.type}: {error.msg}" for error in answer.errors) or "refused without a reason"

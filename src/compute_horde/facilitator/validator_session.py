"""One validator's connection, from its first frame to its last (section 5). Works on any channel."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import assert_never

import structlog

from compute_horde.chain.keys import ss58_of
from compute_horde.chain.port import Chain
from compute_horde.facilitator.cancelling import Cancelling
from compute_horde.facilitator.jobs import Jobs
from compute_horde.facilitator.log_questions import LogQuestions
from compute_horde.facilitator.reporting import CheatReports
from compute_horde.facilitator.validators import REAP_SECONDS, Link, Links, Outgoing
from compute_horde.protocol.base import DEFAULT_MAX_FRAME_BYTES, MalformedFrame, Message, parse_frame
from compute_horde.protocol.control import V0JobLogsResponse
from compute_horde.protocol.extensions import announced
from compute_horde.protocol.facilitator_validator import (
    CLOSE_DISCONNECTED,
    CLOSE_SIGNATURE_INVALID,
    HEADER_MAX_FRAME,
    HEADER_RUNNER_VERSION,
    HEADER_VERSION,
    VALIDATOR_TO_FACILITATOR,
    Response,
    ResponseError,
    V0AuthenticationRequest,
    V0Heartbeat,
    V0JobStatusUpdate,
    V0MachineSpecsUpdate,
)
from compute_horde.protocol.signing import Verifier, verify_hex
from compute_horde.transport.channel import Channel, ChannelClosed

log = structlog.get_logger(__name__)
SUCCESS = Response(status="success")
GONE = Response.error("auth.validator_not_found", "Validator with this public key is not in the validator set")
FLUSH_SECONDS = 5
FromValidator = V0Heartbeat | V0JobStatusUpdate | V0MachineSpecsUpdate | V0JobLogsResponse


class Disconnect(Exception):  # noqa: N818 - an instruction more than an error
    """Answer with ``response``, then close with ``code``."""

    def __init__(self, code: int, response: Response) -> None:
        self.code, self.response = code, response
        super().__init__(str(code))


class ValidatorDesk:
    """What the sessions share."""

    def __init__(
        self,
        chain: Chain,
        verifier: Verifier,
        now: Callable[[], float],
        *,
        links: Links,
        jobs: Jobs,
        cancelling: Cancelling,
        reports: CheatReports,
        log_questions: LogQuestions,
    ) -> None:
        self.chain, self.verifier, self.now = chain, verifier, now
        self.links, self.jobs, self.cancelling, self.reports = links, jobs, cancelling, reports
        self.log_questions = log_questions
        self.channels: set[Channel] = set()

    def knows(self, hotkey: str) -> bool:
        return hotkey in self.chain.directory().validators

    async def serve(self, channel: Channel, headers: Mapping[str, str]) -> None:
        """Serve one connection until it ends; it is forgotten at once, however it ends (G13)."""
        self.channels.add(channel)
        try:
            await ValidatorSession(self, channel, headers).run()
        finally:
            self.channels.discard(channel)

    async def close_all(self) -> None:
        """At shutdown: no session outlives the service."""
        closing = (channel.close(1001, "shutting down") for channel in list(self.channels))
        await asyncio.gather(*closing, return_exceptions=True)

    async def sweep(self) -> None:
        """Close connections that are silent for ten minutes, and those of validators that left the set."""
        for link in self.links.all():
            if self.now() - link.heard_at > REAP_SECONDS or not self.knows(link.hotkey):
                self.links.remove(link)
                log.info("validator disconnected", validator=link.hotkey)
                await link.channel.close(CLOSE_DISCONNECTED, "disconnected")


class ValidatorSession:
    """Frames in, one at a time; frames out through one queue, so their order is kept."""

    def __init__(self, desk: ValidatorDesk, channel: Channel, headers: Mapping[str, str]) -> None:
        self._desk, self._channel, self._headers = desk, channel, headers
        self._outbox: asyncio.Queue[Outgoing | None] = asyncio.Queue()
        self._link: Link | None = None

    async def run(self) -> None:
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        except Disconnect as end:
            self._forget()
            self._answer(end.response)
            await self._flush(writer)
            await self._channel.close(end.code, end.response.errors[0].type)
        except ChannelClosed:
            pass
        except Exception:
            log.exception("a validator's connection failed")
            self._forget()
            await self._flush(writer)
            await self._channel.close(1011, "internal error")
        finally:
            self._forget()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _forget(self) -> None:
        if self._link:
            self._desk.links.remove(self._link)
            self._desk.log_questions.lost(self._link)

    async def _read(self) -> None:
        while True:
            frame = await self._channel.receive()
            if self._link:
                self._link.heard_at = self._desk.now()
                if not self._desk.knows(self._link.hotkey):
                    raise Disconnect(CLOSE_DISCONNECTED, GONE)
            await self._on_frame(frame)

    async def _write(self) -> None:
        with contextlib.suppress(ChannelClosed):
            while (item := await self._outbox.get()) is not None:
                await self._channel.send(item.frame)
                if item.sent:
                    await _confirm(item.sent)

    async def _flush(self, writer: "asyncio.Task[None]") -> None:
        self._outbox.put_nowait(None)
        await asyncio.wait([writer], timeout=FLUSH_SECONDS)

    def _answer(self, message: Message) -> None:
        self._outbox.put_nowait(Outgoing(message.to_frame()))

    async def _on_frame(self, frame: str) -> None:
        try:
            message = parse_frame(VALIDATOR_TO_FACILITATOR, frame)
        except MalformedFrame as error:
            errors = [ResponseError.model_validate(item) for item in error.for_peer()]
            self._answer(Response(status="error", errors=errors))
            return
        if isinstance(message, V0AuthenticationRequest):
            await self._authenticate(message)
        elif self._link is None:
            self._answer(Response.error("auth.not_authenticated", "Not authenticated"))
        else:
            await self._on_message(message, frame, self._link)

    async def _on_message(self, message: FromValidator, frame: str, link: Link) -> None:
        match message:
            case V0JobStatusUpdate():
                self._answer(await self._report(message, link))
            case V0Heartbeat() | V0MachineSpecsUpdate():
                pass  # neither is answered (section 5.3)
            case V0JobLogsResponse():
                self._desk.log_questions.on_answer(message, frame, link.hotkey)
            case _:
                assert_never(message)

    async def _report(self, update: V0JobStatusUpdate, link: Link) -> Response:
        try:
            return await self._desk.jobs.report(update, link.hotkey)
        except Exception:
            log.exception("status update failed", job_uuid=update.uuid)
            return Response.error("job.internal_error", "The status could not be stored; send it again")

    async def _authenticate(self, request: V0AuthenticationRequest) -> None:
        if self._link:
            self._answer(Response.error("auth.already_authenticated", "Already authenticated"))
            return
        hotkey = self._identify(request)
        self._link = Link(
            hotkey,
            self._channel,
            _frame_limit(self._headers),
            self._desk.now(),
            self._outbox,
            extensions=announced(self._channel.peer_headers),
        )
        self._answer(SUCCESS)
        self._desk.links.add(self._link)
        log.info("validator connected", validator=hotkey, peer=self._channel.peer, **_versions(self._headers))
        await self._desk.jobs.hand_over(self._link)
        await self._desk.cancelling.hand_over(self._link)
        await self._desk.reports.hand_over(self._link)

    def _identify(self, request: V0AuthenticationRequest) -> str:
        """The key is looked up before the signature is checked. :raises Disconnect:"""
        try:
            raw = bytes.fromhex(request.public_key)
            hotkey = ss58_of(raw)
        except ValueError:
            raise Disconnect(CLOSE_DISCONNECTED, GONE) from None
        if not self._desk.knows(hotkey):
            raise Disconnect(CLOSE_DISCONNECTED, GONE)
        if not verify_hex(self._desk.verifier, hotkey, raw, request.signature):
            refused = Response.error("auth.signature_invalid", "The signature is not valid")
            raise Disconnect(CLOSE_SIGNATURE_INVALID, refused)
        return hotkey


async def _confirm(sent: Callable[[], Awaitable[None]]) -> None:
    try:
        await sent()
    except Exception:
        log.exception("a delivery could not be noted; it is repeated at the next connection")


def _frame_limit(headers: Mapping[str, str]) -> int:
    """What the validator says it can receive; the existing network's limit where it says nothing (G20)."""
    told = headers.get(HEADER_MAX_FRAME) or headers.get(HEADER_MAX_FRAME.lower()) or ""
    return int(told) if told.isascii() and told.isdigit() and int(told) > 0 else DEFAULT_MAX_FRAME_BYTES


def _versions(headers: Mapping[str, str]) -> dict[str, str]:
    lowered = {name.lower(): value for name, value in headers.items()}
    return {
        "version": lowered.get(HEADER_VERSION.lower(), "unknown")[:64],
        "runner_version": lowered.get(HEADER_RUNNER_VERSION.lower(), "unknown")[:64],
    }

"""One validator's connection, from its first frame to its last (section 5). Works on any channel."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import assert_never

import structlog

from compute_horde.chain.keys import ss58_of
from compute_horde.chain.port import Chain
from compute_horde.facilitator.handshake import frame_limit, instance, versions
from compute_horde.facilitator.jobs import Jobs
from compute_horde.facilitator.places import Places
from compute_horde.facilitator.presence import Presence
from compute_horde.facilitator.questions import Questions
from compute_horde.facilitator.validators import REAP_SECONDS, Link, Outgoing
from compute_horde.protocol.base import MalformedFrame, Message, parse_frame
from compute_horde.protocol.control import V0JobLogsResponse
from compute_horde.protocol.extensions import Extension, announced
from compute_horde.protocol.facilitator_validator import (
    CLOSE_DISCONNECTED,
    CLOSE_SIGNATURE_INVALID,
    VALIDATOR_TO_FACILITATOR,
    Response,
    ResponseError,
    V0AuthenticationRequest,
    V0ExplainJobResponse,
    V0Heartbeat,
    V0JobStatusUpdate,
    V0MachineSpecsUpdate,
    V0QueueUpdate,
)
from compute_horde.protocol.signing import Verifier, verify_hex
from compute_horde.storage.errors import StorageError
from compute_horde.telemetry.facilitator import FacilitatorMetrics
from compute_horde.telemetry.logs import bind_job, bind_peer
from compute_horde.telemetry.outages import Outages
from compute_horde.telemetry.vocabulary import Refusal
from compute_horde.transport.channel import Channel, ChannelClosed

log = structlog.get_logger(__name__)
SUCCESS = Response(status="success")
GONE = Response.error("auth.validator_not_found", "Validator with this public key is not in the validator set")
FLUSH_SECONDS = 5
NOT_STORED = "job.internal_error"
"""The status has to be sent again. A validator of the existing network does not: so it is tried here first."""
STORE_PAUSES = (0.1, 0.5, 2.0, 4.0)
FromValidator = (
    V0Heartbeat
    | V0JobStatusUpdate
    | V0MachineSpecsUpdate
    | V0JobLogsResponse
    | V0QueueUpdate
    | V0ExplainJobResponse
)


class Disconnect(Exception):  # noqa: N818 - an instruction more than an error
    """Answer with ``response``, then close with ``code``."""

    def __init__(self, code: int, response: Response) -> None:
        self.code, self.response = code, response
        super().__init__(str(code))


class ValidatorDesk:
    """What the sessions share. ``clock``: the steady one."""

    def __init__(
        self,
        chain: Chain,
        verifier: Verifier,
        clock: Callable[[], float],
        *,
        presence: Presence,
        jobs: Jobs,
        places: Places,
        questions: Questions,
        metrics: FacilitatorMetrics,
        outages: Outages,
    ) -> None:
        self.metrics, self.outages = metrics, outages
        self.chain, self.verifier, self.clock = chain, verifier, clock
        self.presence, self.jobs, self.places, self.questions = presence, jobs, places, questions
        self.channels: set[Channel] = set()

    def knows(self, hotkey: str) -> bool:
        return hotkey in self.chain.directory().validators

    async def serve(self, channel: Channel, headers: Mapping[str, str]) -> None:
        """Serve one connection until it ends; it is forgotten at once, however it ends (G13)."""
        self.channels.add(channel)
        try:
            with bind_peer(channel.peer):
                await ValidatorSession(self, channel, headers).run()
        finally:
            self.channels.discard(channel)

    async def close_all(self) -> None:
        """At shutdown: no session outlives the service."""
        closing = (channel.close(1001, "shutting down") for channel in list(self.channels))
        await asyncio.gather(*closing, return_exceptions=True)

    async def sweep(self) -> None:
        """Close connections that are silent for ten minutes, and those of validators that left the set."""
        for link in self.presence.here():
            if self.clock() - link.heard_at > REAP_SECONDS or not self.knows(link.hotkey):
                self.presence.leave(link)
                log.info("validator disconnected", validator=link.hotkey)
                await link.channel.close(CLOSE_DISCONNECTED, "disconnected")
        await self.presence.renew()


class ValidatorSession:
    """Frames in, one at a time; frames out through one queue, so their order is kept."""

    def __init__(self, desk: ValidatorDesk, channel: Channel, headers: Mapping[str, str]) -> None:
        self._desk, self._channel, self._headers = desk, channel, headers
        self._outbox: asyncio.Queue[Outgoing | None] = asyncio.Queue()
        self._link: Link | None = None
        self._attending: asyncio.Task[None] | None = None

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
        except StorageError as error:
            log.warning("a validator is sent away, since the database is", error=str(error))
            self._forget()
            await self._channel.close(1013, "try again later")
        except Exception:
            log.exception("a validator's connection failed")
            self._forget()
            await self._flush(writer)
            await self._channel.close(1011, "internal error")
        finally:
            self._forget()
            tasks = [task for task in (writer, self._attending) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._link:
                await self._desk.presence.left(self._link)

    def _forget(self) -> None:
        if self._link:
            self._desk.presence.leave(self._link)
            self._desk.questions.lost(self._link)

    async def _read(self) -> None:
        while True:
            frame = await self._channel.receive()
            if self._link:
                self._link.heard_at = self._desk.clock()
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
            self._desk.metrics.refused(Refusal.MALFORMED)
            errors = [ResponseError.model_validate(item) for item in error.for_peer()]
            self._answer(Response(status="error", errors=errors))
            return
        if isinstance(message, V0AuthenticationRequest):
            await self._authenticate(message)
        elif self._link is None:
            self._desk.metrics.refused(Refusal.LOGIN)
            self._answer(Response.error("auth.not_authenticated", "Not authenticated"))
        else:
            with bind_peer(self._link.hotkey):
                await self._on_message(message, frame, self._link)

    async def _on_message(self, message: FromValidator, frame: str, link: Link) -> None:
        match message:
            case V0JobStatusUpdate():
                with bind_job(message.uuid[:64]):
                    self._answer(await self._report(message, link))
            case V0Heartbeat() | V0MachineSpecsUpdate():
                pass  # neither is answered (section 5.3)
            case V0JobLogsResponse() | V0ExplainJobResponse():
                self._desk.questions.on_answer(message, frame, link.hotkey)
            case V0QueueUpdate():
                await self._note_places(message, link)
            case _:
                assert_never(message)

    async def _report(self, update: V0JobStatusUpdate, link: Link) -> Response:
        for pause in (*STORE_PAUSES, None):
            try:
                response = await self._desk.jobs.report(update, link)
            except StorageError as error:
                self._desk.outages.failed()
                log.error("status not stored", job_uuid=update.uuid, error=str(error))
            except Exception:
                log.exception("status update failed", job_uuid=update.uuid)
                break
            else:
                self._desk.outages.worked()
                return response
            if pause is not None:
                await asyncio.sleep(pause)
        return Response.error(NOT_STORED, "The status could not be stored; send it again")

    async def _note_places(self, update: V0QueueUpdate, link: Link) -> None:
        try:
            await self._desk.places.note(update.jobs, link)
        except StorageError as error:
            log.warning("places in the queue not stored", validator=link.hotkey, error=str(error))

    async def _authenticate(self, request: V0AuthenticationRequest) -> None:
        if self._link:
            self._answer(Response.error("auth.already_authenticated", "Already authenticated"))
            return
        link = self._make_link(self._identify(request))
        await self._desk.presence.announce(link)
        self._link = link
        self._answer(SUCCESS)
        log.info("validator connected", validator=link.hotkey, peer=self._channel.peer, **versions(self._headers))
        listening = asyncio.Event()
        self._attending = asyncio.create_task(self._desk.presence.attend(link, listening))
        await listening.wait()
        await self._desk.presence.welcome(link)

    def _make_link(self, hotkey: str) -> Link:
        extensions = announced(self._channel.peer_headers)
        return Link(
            hotkey,
            self._channel,
            frame_limit(self._headers),
            self._desk.clock(),
            self._outbox,
            extensions=extensions,
            instance=instance(self._headers) if Extension.CLAIMS in extensions else None,
        )

    def _identify(self, request: V0AuthenticationRequest) -> str:
        """The key is looked up before the signature is checked. :raises Disconnect:"""
        try:
            raw = bytes.fromhex(request.public_key)
            hotkey = ss58_of(raw)
        except ValueError:
            self._desk.metrics.refused(Refusal.MALFORMED)
            raise Disconnect(CLOSE_DISCONNECTED, GONE) from None
        if not self._desk.knows(hotkey):
            self._desk.metrics.refused(Refusal.FORBIDDEN)
            raise Disconnect(CLOSE_DISCONNECTED, GONE)
        if not verify_hex(self._desk.verifier, hotkey, raw, request.signature):
            self._desk.metrics.refused(Refusal.SIGNATURE)
            refused = Response.error("auth.signature_invalid", "The signature is not valid")
            raise Disconnect(CLOSE_SIGNATURE_INVALID, refused)
        return hotkey


async def _confirm(sent: Callable[[], Awaitable[None]]) -> None:
    try:
        await sent()
    except Exception:
        log.exception("a delivery could not be noted; it is repeated at the next connection")

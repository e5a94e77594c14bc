"""One validator's connection: authentication first, then its requests in order (section 6)."""

import asyncio
import contextlib

import structlog

from compute_horde.chain.port import Chain
from compute_horde.miner.auth import Gate, Refusal, not_authenticated, unknown_validator
from compute_horde.miner.capacity import CapacityNews
from compute_horde.miner.connection import Connection
from compute_horde.miner.intake import Intake, Refused
from compute_horde.miner.outbox import Outbox
from compute_horde.miner.pool import Pool
from compute_horde.protocol.base import MalformedFrame, parse_frame
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest
from compute_horde.protocol.validator_miner import (
    VALIDATOR_TO_MINER,
    GenericError,
    V0ExecutorManifestRequest,
    V0InitialJobRequest,
    V0JobAcceptedReceiptRequest,
    V0JobFinishedReceiptRequest,
    V0JobRequest,
    V0MainHotkeyMessage,
    ValidatorAuthForMiner,
    ValidatorToMiner,
)
from compute_horde.telemetry import vocabulary
from compute_horde.telemetry.logs import bind_job, bind_peer
from compute_horde.telemetry.vocabulary import Peer
from compute_horde.transport.channel import Channel, ChannelClosed

log = structlog.get_logger(__name__)

PING = "PING"
WELL = 1000
"""The close code of a peer that is through."""
MAX_EARLY_FRAMES = 64
MAX_EARLY_CHARS = 1024 * 1024
"""What an unauthenticated peer may make the miner keep, in all."""
"""Frames that a connection may send before it authenticates."""


class ValidatorDoor:
    """Where validators come in. One instance; :meth:`serve` runs once for each connection."""

    def __init__(self, gate: Gate, chain: Chain, pool: Pool, outbox: Outbox, intake: Intake) -> None:
        self._gate, self._chain, self._pool, self._intake = gate, chain, pool, intake
        self._outbox, self._desk, self._news = outbox, outbox.desk, CapacityNews(pool)
        self._metrics = self._desk.metrics
        self._lost: set[str] = set()

    async def serve(self, channel: Channel, validator: str) -> None:
        """Speak with a validator until either side closes."""
        with self._desk.session(channel), bind_peer(validator[:64]):
            await self._serve(channel, validator)

    async def _serve(self, channel: Channel, validator: str) -> None:
        connection = Connection(channel, validator)
        writer = asyncio.create_task(connection.write())
        try:
            await self._converse(connection)
        except ChannelClosed as closed:
            log.info("validator left", validator=validator[:64], code=closed.code)
            if connection.admitted and closed.code != WELL:
                self._lost.add(validator)
        finally:
            await self._leave(connection, writer)

    async def _leave(self, connection: Connection, writer: "asyncio.Task[None]") -> None:
        connection.finish()
        try:
            await writer
        finally:
            connection.end()
            self._news.leave(connection)
            self._outbox.leave(connection)

    async def _converse(self, connection: Connection) -> None:
        early: list[str] = []
        if refusal := await self._admit(connection, early):
            self._metrics.refused(refusal.counted)
            log.warning("validator refused", validator=connection.validator[:64], why=refusal.details)
            for message in refusal.messages():
                connection.say(message)
            return
        self._admitted(connection)
        connection.say(V0ExecutorManifestRequest(manifest=self._pool.manifest()))
        self._news.follow(connection)
        await self._outbox.enter(connection)
        for frame in early:
            await self._hear(connection, frame)
        while True:
            await connection.room()  # what it asks for waits for it in memory: it has to read as well
            await self._hear(connection, await connection.channel.receive())

    def _admitted(self, connection: Connection) -> None:
        connection.admitted = True
        if connection.validator in self._lost:
            self._lost.discard(connection.validator)
            self._metrics.reconnected(Peer.VALIDATOR)
        log.info("validator authenticated", validator=connection.validator, address=connection.channel.peer)

    async def _admit(self, connection: Connection, early: list[str]) -> Refusal | None:
        """Wait for the authentication; what comes before it is kept in ``early`` (section 6.1)."""
        validator = connection.validator
        if not self._gate.knows(validator, self._chain.directory().validators):
            return unknown_validator(validator)
        try:
            async with asyncio.timeout(self._desk.settings.auth_limit):
                auth = await self._first_auth(connection, early)
        except TimeoutError:
            auth = None
        if auth is None:
            return not_authenticated(validator, "no authentication", vocabulary.Refusal.LOGIN)
        return self._gate.check(validator, auth, self._desk.clock())

    async def _first_auth(self, connection: Connection, early: list[str]) -> ValidatorAuthForMiner | None:
        room = MAX_EARLY_CHARS
        while room > 0 and len(early) < MAX_EARLY_FRAMES:
            frame = await connection.channel.receive()
            room -= len(frame)
            if room <= 0:
                break
            try:
                message = parse_frame(VALIDATOR_TO_MINER, frame)
            except MalformedFrame:
                early.append(frame)
                continue
            if isinstance(message, ValidatorAuthForMiner):
                return message
            early.append(frame)
        return None

    async def _hear(self, connection: Connection, frame: str) -> None:
        if frame == PING:
            return
        try:
            message = parse_frame(VALIDATOR_TO_MINER, frame)
            with _about(message):
                await self._handle(message, frame, connection)
        except MalformedFrame as error:
            self._metrics.refused(vocabulary.Refusal.MALFORMED)
            connection.say(GenericError(details=f"Malformed message: {error}"))
        except Refused as refused:
            self._metrics.refused(refused.counted)
            log.warning("validator's message refused", validator=connection.validator, why=str(refused))
            connection.say(GenericError(details=str(refused)))
        except Exception:
            log.exception("validator's message not handled", validator=connection.validator)
            connection.say(GenericError(details="Internal error of the miner; the message was not handled"))

    async def _handle(self, message: ValidatorToMiner, frame: str, connection: Connection) -> None:
        match message:
            case V0InitialJobRequest():
                await self._intake.initial(message, frame, connection)
            case V0JobRequest():
                await self._intake.request(message, frame, connection)
            case V0JobAcceptedReceiptRequest() | V0JobFinishedReceiptRequest():
                await self._intake.receipt(message, connection)
            case V0CancelJobRequest():
                await self._intake.cancel(message, connection)
            case V0JobLogsRequest():
                await self._intake.logs(message, connection)
            case V0MainHotkeyMessage():
                connection.say(V0MainHotkeyMessage(main_hotkey=self._desk.settings.main_hotkey))
            case GenericError():
                log.warning("validator reports an error", validator=connection.validator, details=message.details)
            case ValidatorAuthForMiner():
                log.info("authenticated already", validator=connection.validator)


def _about(message: ValidatorToMiner) -> contextlib.AbstractContextManager[None]:
    """Names the message's job in each record."""
    match message:
        case V0InitialJobRequest() | V0JobRequest() | V0CancelJobRequest() | V0JobLogsRequest():
            return bind_job(message.job_uuid[:64])
        case V0JobAcceptedReceiptRequest() | V0JobFinishedReceiptRequest():
            return bind_job(message.payload.job_uuid[:64])
        case _:
            return contextlib.nullcontext()

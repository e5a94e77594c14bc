"""The validator, put together: what it is made of, how it starts and stops."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog

from compute_horde.chain import keys
from compute_horde.chain.port import Chain
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest
from compute_horde.protocol.facilitator_validator import V0JobCheated, V2JobRequest
from compute_horde.protocol.signing import Signer, Verifier
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate
from compute_horde.transport.backoff import backoff
from compute_horde.transport.channel import Dialer
from compute_horde.transport.websocket import WebSocketDialer
from compute_horde.validator.cheats import CheatDesk
from compute_horde.validator.dispatch import Dispatcher
from compute_horde.validator.driver import Driver
from compute_horde.validator.facilitator_link import FacilitatorLink, Order
from compute_horde.validator.intake import Gate, Intake
from compute_horde.validator.journal import Journal
from compute_horde.validator.live import LiveJobs
from compute_horde.validator.logs import LogDesk, Reply
from compute_horde.validator.outbox import Outbox
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.store import Job, Store
from compute_horde.validator.turns import Turns

log = structlog.get_logger(__name__)


class ValidatorService:
    """One validator. Everything that it was told and has not finished survives :meth:`stop`, or a crash."""

    def __init__(
        self,
        settings: ValidatorSettings,
        hotkey: Signer,
        chain: Chain,
        *,
        dialer: Dialer | None = None,
        verifier: Verifier = keys.verify,
        pauses: Callable[[], Iterator[float]] = backoff,
    ) -> None:
        """``pauses``: how long to wait between attempts to reach a peer."""
        dialer = dialer or WebSocketDialer()
        self._settings, self._hotkey, self._pauses = settings, hotkey, pauses
        self._database = Database(settings.database_url)
        self._store = Store(self._database)
        self._outbox = Outbox(self._store)
        self._reputation = Reputation()
        self._journal = Journal(self._store, self._outbox, self._reputation)
        self._logs = LogDesk()
        self._dispatcher = Dispatcher(settings, hotkey, chain, dialer, self._journal, self._reputation, self._logs)
        self._live = LiveJobs(self._store, self._logs, self._driver_of, self._spawn)
        self._turns = Turns()
        gate = Gate(hotkey.ss58_address, chain, verifier, settings.signature_max_age)
        self._intake = Intake(gate, self._journal, self._live.start)
        self._cheats = CheatDesk(gate, verifier, self._store, self._reputation)
        self._facilitator = FacilitatorLink(
            settings.facilitator_url,
            hotkey,
            dialer,
            self._outbox,
            self._take,
            settings.heartbeat_seconds,
            pauses,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> asyncio.Event:
        """Set while the facilitator has let this validator in."""
        return self._facilitator.connected

    async def start(self) -> None:
        """Return once everything runs; the facilitator is dialled in the background."""
        await migrate(self._database, "validator")
        await self._reputation.load(self._store)
        await self._outbox.load()
        for job in await self._store.unfinished():
            log.info("job resumed", job=job.uuid, status=job.state.value)
            self._live.start(job)
        self._spawn(self._facilitator.run())

    async def stop(self) -> None:
        """Stop; jobs under way are left as they are and resumed by the next start. Stopping twice is fine."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._dispatcher.close()
        await self._outbox.close()
        await self._database.close()

    def _take(self, message: Order, reply: Reply) -> None:
        match message:
            case V2JobRequest():
                self._spawn(self._admit(message))
            case V0JobCheated():
                self._spawn(self._cheats.take(message))
            case V0CancelJobRequest():
                self._spawn(self._cancel(message.job_uuid))
            case V0JobLogsRequest():
                if not self._live.ask_logs(message, reply):
                    self._spawn(self._answer_for_absent(message, reply))

    async def _admit(self, request: V2JobRequest) -> None:
        async with self._turns.of(request.uuid):
            await self._intake.take(request)

    async def _cancel(self, job_uuid: str) -> None:
        async with self._turns.of(job_uuid):
            await self._live.cancel(job_uuid)

    async def _answer_for_absent(self, request: V0JobLogsRequest, reply: Reply) -> None:
        async with self._turns.of(request.job_uuid):
            await self._live.answer_for_absent(request, reply)

    def _driver_of(self, job: Job) -> Driver:
        return Driver(
            job,
            self._settings,
            self._hotkey,
            self._store,
            self._journal,
            self._dispatcher,
            self._logs,
            self._pauses,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of the validator failed", exc_info=error)

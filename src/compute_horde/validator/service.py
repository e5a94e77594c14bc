"""The validator, put together: what it is made of, how it starts and stops."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import structlog

from compute_horde.chain import keys
from compute_horde.chain.port import Chain
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.facilitator_validator import V0ExplainJobRequest, V0JobCheated, V2JobRequest
from compute_horde.protocol.signing import Signer, Verifier
from compute_horde.storage.bus import make_bus
from compute_horde.storage.database import Database
from compute_horde.storage.leases import Owners
from compute_horde.storage.migrate import migrate
from compute_horde.telemetry.outages import Outages
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.transport.backoff import redialling
from compute_horde.transport.channel import Dialer
from compute_horde.transport.websocket import WebSocketDialer
from compute_horde.validator.answers import Tell
from compute_horde.validator.cheats import CheatDesk
from compute_horde.validator.claims import Claims
from compute_horde.validator.counting import Counting
from compute_horde.validator.disk import Disk
from compute_horde.validator.dispatch import Dispatcher
from compute_horde.validator.driver import Driver
from compute_horde.validator.explaining import Explainer
from compute_horde.validator.facilitator_link import FacilitatorLink, Order
from compute_horde.validator.gauges import Gauges
from compute_horde.validator.housekeeping import Forgetting
from compute_horde.validator.intake import Gate, Intake
from compute_horde.validator.journal import Journal
from compute_horde.validator.keeper import Keeper
from compute_horde.validator.leasing import Leases
from compute_horde.validator.live import LiveJobs
from compute_horde.validator.logs import LogDesk, Reply
from compute_horde.validator.matcher import Matcher
from compute_horde.validator.operations import health_of, operations_of
from compute_horde.validator.outbox import Outbox
from compute_horde.validator.outbox_store import OutboxStore
from compute_horde.validator.places import PlacesNow
from compute_horde.validator.queue.estimate import RunTimes
from compute_horde.validator.reporter import Reporter
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.store import Store
from compute_horde.validator.supply import Supply
from compute_horde.validator.tools import Tools
from compute_horde.validator.turns import Turns
from compute_horde.validator.watch import Watches

log = structlog.get_logger(__name__)


class ValidatorService:
    """One validator. Everything that it was told and has not finished survives :meth:`stop`, or a crash.

    Several processes may share a PostgreSQL database: each drives what it has let in, and takes over what others
    had when they died.
    """

    def __init__(
        self,
        settings: ValidatorSettings,
        hotkey: Signer,
        chain: Chain,
        *,
        dialer: Dialer | None = None,
        verifier: Verifier = keys.verify,
        pauses: Callable[[], Iterator[float]] = redialling,
        settled: Callable[[], Awaitable[None]] | None = None,
        metrics: ValidatorMetrics | None = None,
    ) -> None:
        """``pauses``: how long to wait between attempts to reach a peer, or the database. ``settled``: see
        :meth:`Database.settled <compute_horde.storage.database.Database.settled>`, which it is by default.
        """
        dialer = dialer or WebSocketDialer()
        self.metrics = metrics or ValidatorMetrics()
        self._database = Database(settings.database_url)
        self._owners = Owners(self._database)
        self._leases = Leases(self._database, self._owners, settings.lease_seconds)
        self._bus = make_bus(self._database)
        self._store = Store(self._database, self._leases.token, self._leases.lease_s)
        self._outbox_store = OutboxStore(self._database)
        self._outbox = Outbox(self._outbox_store)
        self._reputation = Reputation()
        self._claims = Claims()
        self._disk = Disk(settled or self._database.settled, pauses)
        counting, outages = Counting(self.metrics), Outages(self.metrics)
        self._journal = Journal(
            self._store, self._outbox, self._reputation, self._claims, self._disk, counting, outages, pauses
        )
        self._logs = LogDesk()
        self._supply = Supply(self._reputation)
        self._dispatcher = Dispatcher(
            settings,
            hotkey,
            chain,
            dialer,
            self._reputation,
            self._supply,
            self._logs,
            self.metrics.refused,
        )
        self._matcher = Matcher(self._supply, self._dispatcher.candidates, settings.max_priority)
        self._tools = Tools(
            settings=settings,
            signer=hotkey,
            store=self._store,
            journal=self._journal,
            claims=self._claims,
            dispatcher=self._dispatcher,
            matcher=self._matcher,
            supply=self._supply,
            logs=self._logs,
            run_times=RunTimes(),
            disk=self._disk,
            counting=counting,
            metrics=self.metrics,
            pauses=pauses,
        )
        self._live = LiveJobs(
            self._store, self._logs, self._bus, lambda job: Driver(job, self._tools), self._begin, self.metrics
        )
        self._keeper = Keeper(
            self._leases, self._live, self._outbox, self._claims, self._disk, self.metrics, outages
        )
        places = PlacesNow(settings, self._matcher, self._supply, self._tools.run_times, self._live)
        self._explainer = Explainer(
            settings, self._store, self._claims, self._matcher, self._supply, self._live, places
        )
        self._turns = Turns()
        gate = Gate(hotkey.ss58_address, chain, verifier, settings.signature_max_age)
        self._intake = Intake(gate, self._journal, self._live.start, self.metrics)
        self._cheats = CheatDesk(gate, verifier, self._store, self._reputation, self.metrics)
        self._facilitator = FacilitatorLink(
            settings.facilitator_url,
            hotkey,
            dialer,
            self._outbox,
            self._claims,
            self._take,
            self._live.forsake,
            settings.heartbeat_seconds,
            pauses,
            self.metrics,
        )
        self._watches = Watches(self._matcher, self._supply, self._dispatcher)
        self._reporter = Reporter(places, self._facilitator.tell)
        self._housekeeper = Forgetting(self._database, settings.retention_days).housekeeper()
        Gauges(self._database, self._matcher, self._live, self._outbox, self._facilitator).register(self.metrics)
        self.health = health_of(self._database, self._facilitator)
        self.operations = operations_of(settings, self.health, self.metrics)
        self._matcher.changed = self._waiting_changed
        self._facilitator.let_in = self._reporter.connected
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> asyncio.Event:
        """Set while the facilitator has let this validator in."""
        return self._facilitator.connected

    async def start(self) -> None:
        """Return once everything runs; the facilitator is dialled in the background."""
        await migrate(self._database, "validator")
        await self._owners.start()
        await self._bus.start()
        self._facilitator.instance = await self._outbox_store.instance()
        await self._reputation.load(self._store)
        await self._listen()
        await self._keeper.take_over()
        for work in (
            self._facilitator.run(),
            self._keeper.run(),
            self._live.hear_cancels(),
            self._watches.run(),
            self._reporter.run(),
            self._housekeeper.run(),
        ):
            self._spawn(work)

    async def _listen(self) -> None:
        try:
            await self.operations.start()
        except OSError:  # the address is taken
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop; jobs under way are left as they are and resumed by the next start. Stopping twice is fine."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.operations.stop()
        await self._dispatcher.close()
        await self._disk.close()
        self._matcher.close()
        await self._outbox.close()
        await self._bus.close()
        await self._owners.close()
        await self._database.close()

    def _waiting_changed(self) -> None:
        self._reporter.changed()
        self._watches.changed()

    def _take(self, message: Order, reply: Reply, tell: Tell) -> None:
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
            case V0ExplainJobRequest():
                self._spawn(self._explain(message, tell))

    async def _admit(self, request: V2JobRequest) -> None:
        async with self._turns.of(request.uuid):
            await self._intake.take(request)

    async def _cancel(self, job_uuid: str) -> None:
        async with self._turns.of(job_uuid):
            await self._live.cancel(job_uuid)

    async def _answer_for_absent(self, request: V0JobLogsRequest, reply: Reply) -> None:
        async with self._turns.of(request.job_uuid):
            await self._live.answer_for_absent(request, reply)

    async def _explain(self, request: V0ExplainJobRequest, tell: Tell) -> None:
        async with self._turns.of(request.job_uuid):
            tell(await self._explainer.answer(request), Extension.EXPLAIN)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        _ = self._begin(work)

    def _begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of the validator failed", exc_info=error)

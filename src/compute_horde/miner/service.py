"""The miner, put together."""

import asyncio
import time
from collections.abc import Callable, Collection

import structlog

from compute_horde.chain import keys
from compute_horde.chain.port import Chain
from compute_horde.configuration import ConfigurationError
from compute_horde.miner.auth import Gate
from compute_horde.miner.desk import GOING_AWAY, Desk
from compute_horde.miner.executor_session import ExecutorDoor
from compute_horde.miner.executors import Executors
from compute_horde.miner.gauges import Gauges
from compute_horde.miner.http import make_app
from compute_horde.miner.intake import Intake
from compute_horde.miner.job import limits_of
from compute_horde.miner.launcher import ExecutorLauncher
from compute_horde.miner.outbox import Outbox
from compute_horde.miner.pool import Pool
from compute_horde.miner.receipts import ReceiptBook
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.store import Clock, JobStore
from compute_horde.miner.supervisor import Supervisor
from compute_horde.miner.timers import Timers
from compute_horde.miner.validator_session import ValidatorDoor
from compute_horde.protocol.signing import Signer, Verifier
from compute_horde.protocol.validator_miner import V0InitialJobRequest
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate
from compute_horde.storage.retention import Housekeeper, Rule
from compute_horde.storage.sole import Sole
from compute_horde.telemetry.health import Health, answers, flag
from compute_horde.telemetry.miner import MinerMetrics
from compute_horde.telemetry.server import Operations, health_routes, metrics_route
from compute_horde.transport.served import Server

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 600

UNHEARD_SECONDS = 3600
"""Ended jobs that stay unacknowledged are kept in memory so long; the database keeps them longer."""


class MinerService:
    """Builds the parts; starts and stops them. ``hotkey`` is needed unless ``settings.trusted_for`` is set.

    :attr:`validators` and :attr:`executors` serve channels of any kind, so that no socket is needed in a test;
    :attr:`book` has the receipts (None on a trusted miner), :attr:`pool` the places.
    """

    def __init__(
        self,
        settings: MinerSettings,
        chain: Chain,
        launcher: ExecutorLauncher,
        *,
        hotkey: Signer | None,
        verifier: Verifier = keys.verify,
        clock: Clock = time.time,
        timers: Callable[[], Timers] = Timers,
        metrics: MinerMetrics | None = None,
    ) -> None:
        """``clock``: the wall's. ``timers``: those of one job.

        :raises ConfigurationError: there is no hotkey, and the miner is not a trusted one."""
        self._settings, self._launcher, self._clock = settings, launcher, clock
        self._database = Database(settings.database_url)
        self._store = JobStore(self._database, clock)
        self.book = self._make_book(hotkey)
        self._gate = self._make_gate(hotkey, verifier)
        self.pool = Pool(settings.executors)
        self.metrics = metrics or MinerMetrics()
        self._desk = Desk(settings, self._store, clock, timers, self.metrics)
        self._outbox = Outbox(self._desk)
        self._supervisor = Supervisor(self._desk, launcher, lambda: self.executor_address)
        self._at_work = Executors(self._desk, self._supervisor)
        intake = Intake(self._outbox, self._at_work, self.pool, verifier, self.book)
        self.validators = ValidatorDoor(self._gate, chain, self.pool, self._outbox, intake)
        self.executors = ExecutorDoor(self._desk, self._at_work, hotkey)
        self._sole = Sole(self._database, "miner")
        self._keeper = Housekeeper(self._database, self._rules(), every_s=HOUSEKEEPING_SECONDS)
        self._server: Server | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._ready = False
        self.health = self._make_health()
        self.operations = Operations(
            self.health,
            self.metrics,
            host=settings.operations_host,
            port=settings.operations_port,
            token=settings.operations_token,
        )
        Gauges(self._database, self._desk, self._outbox, self.pool, lambda: self._known(chain)).register(
            self.metrics
        )

    def _make_health(self) -> Health:
        ready = {
            "started": flag(lambda: self._ready, "it starts or stops"),
            "database": answers(self._database),
        }
        works = flag(self._works, "a part of the miner has ended; restart it")
        return Health(ready, {"tasks": works}, unready="not ready")

    def _known(self, chain: Chain) -> Collection[str]:
        trusted = self._settings.trusted_for
        return [trusted] if trusted else chain.directory().validators

    def _make_book(self, hotkey: Signer | None) -> ReceiptBook | None:
        if self._settings.trusted_for:
            return None
        if hotkey is None:
            raise ConfigurationError("a miner needs a hotkey: set wallet_path, wallet_name and wallet_hotkey")
        return ReceiptBook(self._database, hotkey, self._clock)

    def _make_gate(self, hotkey: Signer | None, verifier: Verifier) -> Gate:
        if self._settings.trusted_for or hotkey is None:
            return Gate.trusted(self._settings.trusted_for or "", verifier)
        return Gate(hotkey.ss58_address, verifier)

    @property
    def port(self) -> int:
        """The port that is listened on; before the start, the one that was asked for."""
        return self._server.port if self._server else self._settings.port

    @property
    def url(self) -> str:
        """Where validators and executors of this machine dial: ``ws://host:port``."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.host, self._settings.host)  # noqa: S104
        return f"ws://[{host}]:{self.port}" if ":" in host else f"ws://{host}:{self.port}"

    @property
    def executor_address(self) -> str:
        return self._settings.executor_address or self.url

    async def start(self) -> None:
        """Migrate, pick up what was under way, listen, warm the executors.

        :raises OSError: the address cannot be listened on.
        :raises StorageError: the database cannot be used, or another miner runs on it.
        """
        try:
            await self._prepare()
            await self._listen()
            await self.operations.start()
            self._resume()
            for executor_class, count in self.pool.manifest().items():
                await self._launcher.warm(executor_class, min(count, self._settings.warm))
        except BaseException:
            await self.stop()
            raise
        self._ready = True
        log.info("miner started", url=self.url, manifest=self.pool.manifest())

    async def open(self) -> None:
        """:meth:`start` without a socket, for channels of other kinds. :raises StorageError:"""
        await self._prepare()
        self._resume()

    async def _listen(self) -> None:
        token = self._settings.operations_token
        metrics = [metrics_route(self.metrics, token)] if token else []  # strangers reach this port
        app = make_app(self.validators, self.executors, self.book, [*health_routes(self.health), *metrics])
        self._server = Server(app, self._settings.host, self._settings.port)
        await self._server.start()

    async def _prepare(self) -> None:
        await self._sole.start()
        await migrate(self._database, "miner")
        restored = await self._desk.restore()
        self.metrics.lease_taken_over(len(restored))
        for job in restored:
            job.slot = self.pool.take(job.row.executor_class)
            initial = V0InitialJobRequest.model_validate_json(job.row.initial)
            limits = limits_of(initial, self._settings.executor_startup_limit)
            self._at_work.restored(job, limits.readiness(job.row.executor_class))
        self._housekeeping = asyncio.create_task(self._keeper.run())

    def _resume(self) -> None:
        """Launch an executor for each job under way: it stands by where the former one lives, else takes over."""
        for job in [job for job in self._desk.jobs.values() if not job.ended]:
            log.info("job picked up again", job_uuid=job.uuid, state=job.row.state.value)
            self._supervisor.start(job)

    async def stop(self, *, end_jobs: bool = False) -> None:
        """Stop listening, close the database. Jobs under way are left to their executors, for the next start.

        ``end_jobs``: give them up, and end their executors. Twice is fine.
        """
        self._ready = False
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        if end_jobs:
            await self._desk.end_jobs()
        self._desk.stop()
        self._outbox.finish(GOING_AWAY)
        if not end_jobs:
            await self._supervisor.stop()
        await self._launcher.close(kill=end_jobs)
        await self._supervisor.stop()
        await self._desk.drain()
        if self._server is not None:
            await self._server.stop()
        await self.operations.stop()
        await self._sole.close()
        await self._database.close()

    def _works(self) -> bool:
        return self._housekeeping is None or not self._housekeeping.done()

    def _rules(self) -> dict[str, Rule]:
        """What is past its retention; receipts have their own (section 9.3)."""
        rules: dict[str, Rule] = {"jobs": self._forget_jobs}
        if self.book is not None:
            rules["receipts"] = self.book.purge
        return rules

    async def _forget_jobs(self) -> int:
        self._desk.forget_ended(self._clock() - UNHEARD_SECONDS)
        return await self._store.purge(self._clock() - self._settings.retention)

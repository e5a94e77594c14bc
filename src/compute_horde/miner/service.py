"""The miner, put together."""

import asyncio
import contextlib
import time

import sqlalchemy as sa
import structlog

from compute_horde.chain import keys
from compute_horde.chain.port import Chain
from compute_horde.configuration import ConfigurationError
from compute_horde.lifecycle.states import JobState
from compute_horde.miner.auth import Gate
from compute_horde.miner.desk import Desk
from compute_horde.miner.executor_session import ExecutorDoor
from compute_horde.miner.executors import Executors
from compute_horde.miner.http import make_app
from compute_horde.miner.intake import Intake
from compute_horde.miner.job import Job, limits_of
from compute_horde.miner.launcher import ExecutorLauncher
from compute_horde.miner.pool import ClassNotOffered, Pool
from compute_horde.miner.receipts import RETENTION_SECONDS, ReceiptBook
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.store import REPLAY_SECONDS, Clock, JobStore
from compute_horde.miner.validator_session import ValidatorDoor
from compute_horde.protocol.signing import Signer, Verifier
from compute_horde.protocol.validator_miner import V0InitialJobRequest
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate
from compute_horde.transport.served import Server

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 3600


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
    ) -> None:
        """:raises ConfigurationError: there is no hotkey, and the miner is not a trusted one."""
        self._settings, self._launcher, self._clock = settings, launcher, clock
        self._database = Database(settings.database_url)
        self._store = JobStore(self._database, clock)
        self.book = self._make_book(hotkey)
        self._gate = self._make_gate(hotkey, verifier)
        self.pool = Pool(settings.executors)
        self._desk = Desk(settings, self._store, clock)
        self._executors = Executors(self._desk, launcher, lambda: self.executor_address)
        intake = Intake(self._desk, self._executors, self.pool, verifier, self.book)
        self.validators = ValidatorDoor(self._gate, chain, self.pool, self._desk, intake)
        self.executors = ExecutorDoor(self._desk, self._executors, hotkey)
        self._server: Server | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._ready = False

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
        """
        try:
            await self.open()
            await self._listen()
            for executor_class, count in self.pool.manifest().items():
                await self._launcher.warm(executor_class, min(count, self._settings.warm))
        except BaseException:
            await self.stop()
            raise
        self._ready = True
        log.info("miner started", url=self.url, manifest=self.pool.manifest())

    async def _listen(self) -> None:
        app = make_app(self.validators, self.executors, self.book, self._is_ready)
        self._server = Server(app, self._settings.host, self._settings.port)
        await self._server.start()

    async def open(self) -> None:
        """The part of :meth:`start` that needs no socket."""
        await migrate(self._database, "miner")
        await self._tidy()
        for job in await self._desk.restore():
            self._pick_up(job)
        self._housekeeping = asyncio.create_task(self._keep_house())

    def _pick_up(self, job: Job) -> None:
        with contextlib.suppress(ClassNotOffered):
            job.slot = self.pool.reserve(job.row.executor_class)
        initial = V0InitialJobRequest.model_validate_json(job.row.initial)
        limits = limits_of(initial, self._settings.executor_startup_limit)
        self._executors.restored(job)
        self._executors.arm(job, limits.readiness(job.row.executor_class))
        if job.row.state is not JobState.ACCEPTED:
            self._executors.ready(job)

    async def stop(self) -> None:
        """Give up jobs under way, end the executors, stop listening, close the database. Twice is fine."""
        self._ready = False
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        await self._desk.stop()
        await self._launcher.close()
        await self._desk.drain()
        if self._server is not None:
            await self._server.stop()
        await self._database.close()

    async def _is_ready(self) -> bool:
        if not self._ready:
            return False
        try:
            async with self._database.read() as connection:
                await connection.execute(sa.text("SELECT 1"))
        except sa.exc.SQLAlchemyError:
            return False
        return True

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            try:
                await self._tidy()
            except sa.exc.SQLAlchemyError as error:
                log.error("housekeeping failed", error=type(error).__name__)

    async def _tidy(self) -> None:
        """Forget what is past its retention (section 9.3)."""
        await self._store.purge(self._clock() - RETENTION_SECONDS)
        if self.book is not None:
            await self.book.purge()
        self._desk.forget_older_than(self._clock() - REPLAY_SECONDS)

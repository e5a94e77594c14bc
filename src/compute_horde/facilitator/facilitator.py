"""The facilitator without its edges: every part, built and joined in one place."""

import asyncio
import time
from collections.abc import Callable, Mapping

import httpx
import structlog

from compute_horde.chain import keys
from compute_horde.chain.port import Chain
from compute_horde.facilitator.admission import SignatureRules
from compute_horde.facilitator.cancelling import Cancelling
from compute_horde.facilitator.clock import steady_clock
from compute_horde.facilitator.counting import Counting
from compute_horde.facilitator.delivering import Delivering
from compute_horde.facilitator.ending import Endings
from compute_horde.facilitator.events import Events
from compute_horde.facilitator.explaining import ANSWER_SECONDS, Explaining
from compute_horde.facilitator.gauges import Gauges
from compute_horde.facilitator.handing import Handing
from compute_horde.facilitator.jobs import Jobs
from compute_horde.facilitator.listing import JobList
from compute_horde.facilitator.login import Login
from compute_horde.facilitator.logs import Logs, Pace
from compute_horde.facilitator.places import Places
from compute_horde.facilitator.presence import Presence
from compute_horde.facilitator.questions import Answer, Questions, Request, needs
from compute_horde.facilitator.records import Feedbacks, Reports, SpentNonces, kept_secret
from compute_horde.facilitator.registry import RENEW_SECONDS, LinkRegistry
from compute_horde.facilitator.replicas import ANSWER_SECONDS as REPLICA_ANSWER_SECONDS
from compute_horde.facilitator.replicas import HttpReplicas
from compute_horde.facilitator.reporting import CheatReports, FeedbackBook
from compute_horde.facilitator.retention import Retention
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.facilitator.store import JobStore
from compute_horde.facilitator.streams import KEEP_ALIVE_SECONDS, Streams
from compute_horde.facilitator.supervision import Supervisor
from compute_horde.facilitator.switchboard import Switchboard
from compute_horde.facilitator.tokens import Nonces, Tokens
from compute_horde.facilitator.validator_session import ValidatorDesk
from compute_horde.facilitator.validators import Links
from compute_horde.protocol.signing import Verifier
from compute_horde.storage.bus import Bus, make_bus
from compute_horde.storage.database import Database
from compute_horde.storage.errors import StorageError
from compute_horde.storage.leases import Owners
from compute_horde.storage.migrate import migrate
from compute_horde.storage.retention import Housekeeper
from compute_horde.telemetry.facilitator import FacilitatorMetrics
from compute_horde.telemetry.health import Health, answers, flag
from compute_horde.telemetry.outages import Outages
from compute_horde.transport.channel import Channel

log = structlog.get_logger(__name__)
SWEEP_SECONDS = RENEW_SECONDS
REPLICA_TOKEN_SECONDS = 300


class Facilitator:
    """One replica. Usable between :meth:`open` and :meth:`close`.

    * ``now``: the wall clock in UNIX seconds; ``clock``: the steady one, for deadlines, by default made of it
    * ``bus``, ``replica_transport``: to other replicas on the same database; by default what fits it, and sockets
    """

    def __init__(
        self,
        settings: FacilitatorSettings,
        chain: Chain,
        *,
        verifier: Verifier = keys.verify,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] | None = None,
        keep_alive_s: float = KEEP_ALIVE_SECONDS,
        logs_pace: Pace | None = None,
        explain_s: float = ANSWER_SECONDS,
        bus: Bus | None = None,
        replica_transport: httpx.AsyncBaseTransport | None = None,
        metrics: FacilitatorMetrics | None = None,
    ) -> None:
        self.settings, self.verifier, self.now = settings, verifier, now
        self.clock = clock or (steady_clock() if now is time.time else now)
        self.metrics = metrics or FacilitatorMetrics()
        self.outages = Outages(self.metrics)
        self.database = Database(settings.database_url)
        self.bus, self.links = bus or make_bus(self.database), Links()
        self.store, self.job_list = JobStore(self.database), JobList(self.database)
        self.owners = Owners(self.database)
        self.registry = LinkRegistry(self.database, self.owners)
        self.board = Switchboard(self.links, self.registry, self.clock)
        self._replicas = HttpReplicas(self._replica_token, replica_transport)
        self.questions = Questions(self._replicas)
        self.explaining = Explaining(self.store, self.board, self.questions, now, explain_s)
        self.places = Places(self.database, self.bus, now)
        self._counting = Counting(self.metrics, self.store)
        endings = Endings(self.store, self.bus, self.links, now, self._counting)
        self.supervisor = Supervisor(self.store, endings, self.clock)
        self._join_jobs(endings)
        self.feedback = FeedbackBook(Feedbacks(self.database), now)
        self.desk = ValidatorDesk(
            chain,
            verifier,
            self.clock,
            presence=self.presence,
            jobs=self.jobs,
            places=self.places,
            questions=self.questions,
            metrics=self.metrics,
            outages=self.outages,
        )
        self.housekeeper = Housekeeper(self.database, Retention(self.database, settings, now).rules())
        self._chain, self._keep_alive = chain, keep_alive_s
        self._pace = logs_pace or Pace(keep_alive=keep_alive_s)
        self._tasks: list[asyncio.Task[None]] = []
        self.health = Health(
            {"database": answers(self.database)},
            {"tasks": flag(self._works, "a part of the facilitator has ended; restart it")},
        )
        gauges = Gauges(self.database, self.links, lambda: self.streams.count, now)
        gauges.register(self.metrics)
        self.login: Login
        self.streams: Streams
        self.events: Events
        self.logs: Logs
        self._replica_tokens: Tokens

    def _join_jobs(self, endings: Endings) -> None:
        handing = Handing(self.database)
        self.delivering = Delivering(handing, self.links, self.board, self.bus)
        self.jobs = Jobs(
            self.store,
            self.links,
            self.board,
            self.delivering,
            self.bus,
            self._counting,
            now=self.now,
            clock=self.clock,
            margin_s=self.settings.silence_margin,
            on_deadline=self.supervisor.note,
        )
        self.cancelling = Cancelling(
            handing,
            self.links,
            self.board,
            endings,
            self.bus,
            now=self.now,
            clock=self.clock,
            limit_s=self.settings.cancel_limit,
            on_deadline=self.supervisor.note,
        )
        self.cheat_reports = CheatReports(Reports(self.database), self.board, self.bus, self.now)
        sources = (self.delivering, self.cancelling, self.cheat_reports)
        self.presence = Presence(self.links, self.registry, self.bus, sources, self.metrics)

    async def open(self) -> None:
        """Bring the database up to date, load the secret, join the other replicas, start supervision."""
        await migrate(self.database, "facilitator")
        await self.owners.start()
        await self.bus.start()
        given = self.settings.secret
        secret = given.get_secret_value() if given else await kept_secret(self.database)
        self._replica_tokens = Tokens(secret, REPLICA_TOKEN_SECONDS, "replica")
        self.login = Login(
            self._chain,
            self.verifier,
            Nonces(secret, self.settings.nonce_lifetime),
            Tokens(secret, self.settings.jwt_lifetime),
            SpentNonces(self.database),
            self.now,
            self.metrics,
        )
        self.streams = Streams(self.bus, self.login)
        self.events = Events(self.store, self.places, self.streams, self._keep_alive)
        self.logs = Logs(self.store, self.streams, self.board, self.questions, self._pace)
        work = (self.supervisor.run(), self._sweep(), self.housekeeper.run())
        self._tasks = [asyncio.create_task(one) for one in work]

    async def hang_up(self) -> None:
        """End every stream and every validator's connection."""
        self.streams.close()
        await self.desk.close_all()

    async def close(self) -> None:
        """Stop supervision, leave the other replicas and the database. Closing twice is fine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._replicas.close()
        await self.bus.close()
        await self.owners.close()
        await self.database.close()

    def rules(self, user: str) -> SignatureRules:
        """How this user's signatures are checked, now."""
        return SignatureRules(user, self.now(), self.settings.signature_max_age, self.verifier)

    async def serve_validator(self, channel: Channel, headers: Mapping[str, str]) -> None:
        await self.desk.serve(channel, headers)

    def _works(self) -> bool:
        """Whether all that runs beside the requests still does."""
        return not any(task.done() for task in self._tasks)

    def check_replica(self, authorization: str | None) -> None:
        """:raises ApiError: 401: this is not from another replica."""
        self._replica_tokens.hotkey_and_expiry(authorization, self.now())

    async def ask_here(self, link_id: str, request: Request) -> Answer | None:
        """Ask a validator for another replica. None: that connection is not here, or does not know of such."""
        link = self.links.get(link_id)
        if link is None or needs(request) not in link.extensions:
            return None
        return await self.questions.answer(link, request, REPLICA_ANSWER_SECONDS)

    def _replica_token(self) -> str:
        return f"Bearer {self._replica_tokens.make('replica', self.now())}"

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.desk.sweep()
                self.outages.worked()
            except StorageError as error:
                self.outages.failed()
                log.warning("connections not renewed", error=str(error))

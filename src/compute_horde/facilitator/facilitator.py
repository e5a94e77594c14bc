"""The facilitator without its edges: every part, built and joined in one place."""

import asyncio
import time
from collections.abc import Callable, Mapping

from sqlalchemy import select

from compute_horde.chain import keys
from compute_horde.chain.port import Chain
from compute_horde.facilitator.admission import SignatureRules
from compute_horde.facilitator.cancelling import Cancelling
from compute_horde.facilitator.ending import Endings
from compute_horde.facilitator.events import Events
from compute_horde.facilitator.jobs import Jobs
from compute_horde.facilitator.listing import JobList
from compute_horde.facilitator.log_questions import LogQuestions
from compute_horde.facilitator.login import Login
from compute_horde.facilitator.logs import Logs, Pace
from compute_horde.facilitator.records import Feedbacks, Reports, SpentNonces, kept_secret
from compute_horde.facilitator.reporting import CheatReports, FeedbackBook
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.facilitator.store import JobStore
from compute_horde.facilitator.streams import KEEP_ALIVE_SECONDS, Streams
from compute_horde.facilitator.supervision import Supervisor
from compute_horde.facilitator.tokens import Nonces, Tokens
from compute_horde.facilitator.validator_session import ValidatorDesk
from compute_horde.facilitator.validators import Links
from compute_horde.protocol.signing import Verifier
from compute_horde.storage.bus import LocalBus
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate
from compute_horde.transport.channel import Channel

SWEEP_SECONDS = 60


class Facilitator:
    """``now``: the wall clock in UNIX seconds. Usable between :meth:`open` and :meth:`close`."""

    def __init__(
        self,
        settings: FacilitatorSettings,
        chain: Chain,
        *,
        verifier: Verifier = keys.verify,
        now: Callable[[], float] = time.time,
        keep_alive_s: float = KEEP_ALIVE_SECONDS,
        logs_pace: Pace | None = None,
    ) -> None:
        self.settings, self.verifier, self.now = settings, verifier, now
        self.database = Database(settings.database_url)
        self.bus, self.links = LocalBus(), Links()
        self.store = JobStore(self.database)
        self.job_list = JobList(self.database)
        endings = Endings(self.store, self.bus, self.links, now)
        self.supervisor = Supervisor(self.store, endings, now)
        self.jobs = Jobs(
            self.store,
            self.links,
            self.bus,
            now=now,
            margin_s=settings.silence_margin,
            on_deadline=self.supervisor.note,
        )
        self.cancelling = Cancelling(
            self.store,
            self.links,
            endings,
            now=now,
            limit_s=settings.cancel_limit,
            on_deadline=self.supervisor.note,
        )
        self.log_questions = LogQuestions()
        self.cheat_reports = CheatReports(Reports(self.database), self.links, now)
        self.feedback = FeedbackBook(Feedbacks(self.database), now)
        self.desk = ValidatorDesk(
            chain,
            verifier,
            now,
            links=self.links,
            jobs=self.jobs,
            cancelling=self.cancelling,
            reports=self.cheat_reports,
            log_questions=self.log_questions,
        )
        self._chain, self._keep_alive = chain, keep_alive_s
        self._pace = logs_pace or Pace(keep_alive=keep_alive_s)
        self._tasks: list[asyncio.Task[None]] = []
        self.login: Login
        self.streams: Streams
        self.events: Events
        self.logs: Logs

    async def open(self) -> None:
        """Bring the database up to date, load the secret, start supervision."""
        await migrate(self.database, "facilitator")
        given = self.settings.secret
        secret = given.get_secret_value() if given else await kept_secret(self.database)
        self.login = Login(
            self._chain,
            self.verifier,
            Nonces(secret, self.settings.nonce_lifetime),
            Tokens(secret, self.settings.jwt_lifetime),
            SpentNonces(self.database),
            self.now,
        )
        self.streams = Streams(self.bus, self.login)
        self.events = Events(self.store, self.streams, self._keep_alive)
        self.logs = Logs(self.store, self.streams, self.links, self.log_questions, self.now, self._pace)
        self._tasks = [asyncio.create_task(self.supervisor.run()), asyncio.create_task(self._sweep())]

    async def hang_up(self) -> None:
        """End every stream and every validator's connection."""
        self.streams.close()
        await self.desk.close_all()

    async def close(self) -> None:
        """Stop supervision and leave the database. Closing twice is fine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.database.close()

    def rules(self, user: str) -> SignatureRules:
        """How this user's signatures are checked, now."""
        return SignatureRules(user, self.now(), self.settings.signature_max_age, self.verifier)

    async def serve_validator(self, channel: Channel, headers: Mapping[str, str]) -> None:
        await self.desk.serve(channel, headers)

    async def is_ready(self) -> bool:
        """Whether the database answers."""
        try:
            async with self.database.read() as connection:
                await connection.execute(select(1))
        except Exception:
            return False
        return True

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.desk.sweep()

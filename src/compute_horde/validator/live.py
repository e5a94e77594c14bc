"""The jobs under way in this process: what the facilitator says about one reaches its driver."""

import asyncio
import re
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import structlog

from compute_horde.protocol.control import V0JobLogsRequest, empty_answer
from compute_horde.protocol.receipts import UUID_PATTERN
from compute_horde.storage.bus import Bus
from compute_horde.telemetry.logs import bind_job
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.telemetry.vocabulary import Refusal
from compute_horde.transport.backoff import backoff
from compute_horde.validator.driver import Driver
from compute_horde.validator.logs import LogDesk, Reply
from compute_horde.validator.persisting import persist
from compute_horde.validator.rows import Job
from compute_horde.validator.store import Store

log = structlog.get_logger(__name__)

CANCELS = "validator:cancels"
"""The topic that tells other processes of a wish that was kept."""


ANEW_SECONDS = 1.0


class LiveJobs:
    """Drivers by job. ``spawn`` runs one in the background."""

    def __init__(
        self,
        store: Store,
        logs: LogDesk,
        bus: Bus,
        driver_of: Callable[[Job], Driver],
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        metrics: ValidatorMetrics,
    ) -> None:
        self._store, self._logs, self._bus, self._driver_of, self._spawn = store, logs, bus, driver_of, spawn
        self._metrics = metrics
        self._drivers: dict[str, tuple[Driver, asyncio.Task[None]]] = {}

    def start(self, job: Job) -> None:
        """Drive a job that was just let in, or was under way when a validator stopped."""
        if job.uuid in self._drivers:
            return
        driver = self._driver_of(job)
        self._drivers[job.uuid] = driver, self._spawn(self._run(job.uuid, driver))

    async def _run(self, job_uuid: str, driver: Driver) -> None:
        try:
            with bind_job(job_uuid):
                await driver.run()
        finally:
            del self._drivers[job_uuid]
        if driver.is_stale:
            await self._begin_anew(job_uuid)

    async def _begin_anew(self, job_uuid: str) -> None:
        """A job that was changed behind its driver's back, and is ours all the same, goes on from its row."""
        job = await persist(lambda _: self._store.ours(job_uuid), backoff, "a look at a job")
        if job is not None:
            await asyncio.sleep(ANEW_SECONDS)
            self.start(job)

    def driver(self, job_uuid: str) -> Driver | None:
        found = self._drivers.get(job_uuid)
        return found[0] if found else None

    def under_way(self) -> Collection[str]:
        """The jobs that are being driven and have not ended."""
        return [uuid for uuid, (driver, _) in self._drivers.items() if not driver.has_ended]

    def drivers(self) -> Collection[Driver]:
        return [driver for driver, _ in self._drivers.values()]

    def drop(self, job_uuid: str) -> None:
        """The job is another process's now: nothing more is done or said about it here."""
        if found := self._drivers.get(job_uuid):
            self._metrics.refused(Refusal.STALE_CLAIM)
            log.warning("a job's lease is lost", job=job_uuid)
            found[1].cancel()

    def forsake(self, job_uuid: str) -> None:
        """The job is another instance's: it ends here without a word."""
        if driver := self.driver(job_uuid):
            driver.forsake()

    async def cancel(self, job_uuid: str) -> None:
        """The wish is kept before it is acted upon. A job that is not known, or has ended, is left as it is."""
        if not is_uuid(job_uuid) or not await self._keep_wish(job_uuid):
            self._metrics.refused(Refusal.UNKNOWN_JOB)
            log.info("nothing to cancel", job=job_uuid[:100])
            return
        if driver := self.driver(job_uuid):
            driver.cancel()
        else:
            self._bus.notify(CANCELS)

    async def _keep_wish(self, job_uuid: str) -> bool:
        return await persist(lambda _: self._store.request_cancel(job_uuid), backoff, "a wish to cancel")

    async def hear_cancels(self) -> None:
        """For ever: act upon wishes that another process has kept for jobs of ours."""
        with self._bus.subscribe(CANCELS) as kept:
            while True:
                await kept.wait()
                kept.clear()
                for job_uuid in await persist(lambda _: self._store.to_cancel(), backoff, "wishes to cancel"):
                    if driver := self.driver(job_uuid):
                        driver.cancel()

    def ask_logs(self, request: V0JobLogsRequest, reply: Reply) -> bool:
        """Pass on a request for output. False: no such job is under way."""
        driver = self.driver(request.job_uuid)
        if driver is None or driver.has_ended:
            return False
        self._logs.ask(request, reply)
        return True

    async def answer_for_absent(self, request: V0JobLogsRequest, reply: Reply) -> None:
        """A request about a job that was not under way when it came; it may have been let in meanwhile."""
        job = await self._store.job(request.job_uuid) if is_uuid(request.job_uuid) else None
        if not self.ask_logs(request, reply):
            ended = job is not None and job.state.is_terminal
            if job is None:
                self._metrics.refused(Refusal.UNKNOWN_JOB)
            reply(request, empty_answer(request, "ended" if ended else "unavailable"))


def is_uuid(text: str) -> bool:
    """Others are in no database, and some databases refuse to be asked for them."""
    return re.fullmatch(UUID_PATTERN, text) is not None

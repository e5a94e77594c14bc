"""The jobs under way in this process: what the facilitator says about one reaches its driver."""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from compute_horde.protocol.control import V0JobLogsRequest, empty_answer
from compute_horde.validator.driver import Driver
from compute_horde.validator.logs import LogDesk, Reply
from compute_horde.validator.store import Job, Store

log = structlog.get_logger(__name__)


class LiveJobs:
    """Drivers by job. ``spawn`` runs one in the background."""

    def __init__(
        self,
        store: Store,
        logs: LogDesk,
        driver_of: Callable[[Job], Driver],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._store, self._logs, self._driver_of, self._spawn = store, logs, driver_of, spawn
        self._drivers: dict[str, Driver] = {}

    def start(self, job: Job) -> None:
        """Drive a job that was just let in, or was under way when the validator stopped."""
        self._drivers[job.uuid] = driver = self._driver_of(job)
        self._spawn(self._run(job.uuid, driver))

    async def _run(self, job_uuid: str, driver: Driver) -> None:
        try:
            await driver.run()
        finally:
            del self._drivers[job_uuid]

    async def cancel(self, job_uuid: str) -> None:
        """The wish is kept before it is acted upon. A job that is not known, or has ended, is left as it is."""
        if not await self._store.request_cancel(job_uuid):
            log.info("nothing to cancel", job=job_uuid[:100])
            return
        if driver := self._drivers.get(job_uuid):
            driver.cancel()

    def ask_logs(self, request: V0JobLogsRequest, reply: Reply) -> bool:
        """Pass on a request for output. False: no such job is under way."""
        driver = self._drivers.get(request.job_uuid)
        if driver is None or driver.has_ended:
            return False
        self._logs.ask(request, reply)
        return True

    async def answer_for_absent(self, request: V0JobLogsRequest, reply: Reply) -> None:
        """A request about a job that was not under way when it came; it may have been let in meanwhile."""
        job = await self._store.job(request.job_uuid)
        if not self.ask_logs(request, reply):
            ended = job is not None and job.state.is_terminal
            reply(request, empty_answer(request, "ended" if ended else "unavailable"))

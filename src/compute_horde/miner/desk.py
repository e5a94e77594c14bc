"""The miner's jobs at work: accepted, moved on, re-sent, ended. Knows connections, not their frames."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

import structlog

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.lifecycle.states import IllegalTransition, JobState, transition
from compute_horde.miner.connection import Connection
from compute_horde.miner.job import Job, envelope
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.store import Clock, JobRow, JobStore
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, Message
from compute_horde.protocol.enums import Participant
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.validator_miner import V0JobFailedRequest

log = structlog.get_logger(__name__)


class Desk:
    """The registry of jobs and of validators' connections. One event loop; the database is the truth."""

    def __init__(self, settings: MinerSettings, store: JobStore, clock: Clock = time.time) -> None:
        self.settings, self.store, self.clock = settings, store, clock
        self.jobs: dict[str, Job] = {}
        self.tokens: dict[str, Job] = {}
        self._connections: dict[str, list[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside everything else; a failure of it is logged. Nothing begins once stopped."""
        if self._stopped:
            work.close()
            return
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("a task of the miner failed")

    async def stop(self) -> None:
        """End every timer and task. Jobs stay as they are stored."""
        self._stopped = True
        for job in self.jobs.values():
            job.finish(0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # jobs

    def add(self, job: Job) -> Job:
        self.jobs[job.uuid] = job
        self.tokens[job.row.token] = job
        return job

    def forget(self, job: Job) -> None:
        """Drop a job that has ended and that nobody will ask for."""
        self.jobs.pop(job.uuid, None)
        self.tokens.pop(job.row.token, None)

    async def find(self, job_uuid: str) -> Job | None:
        """A job under way, or one that ended, from the database."""
        if job := self.jobs.get(job_uuid):
            return job
        row = await self.store.find(job_uuid)
        return self.jobs.get(job_uuid) or (Job(row) if row else None)

    def deadline(self, job: Job, name: str, seconds: float, code: str, text: str) -> None:
        """Fail the job with this problem when the time is up."""
        job.arm(name, seconds, lambda: self.spawn(self.fail(job, problem(code, text))))

    # the outbox

    async def record(
        self, job: Job, message: Message, to: JobState | None = None, by: Participant = Participant.EXECUTOR
    ) -> bool:
        """Store a message about a job together with the state that it brings, then send it on.

        False: it came too late, twice, or out of order, and was dropped.
        """
        async with job.outbox:
            wrapped = envelope(message)
            try:
                state = transition(job.row.state, to, by) if to else job.row.state
            except IllegalTransition as illegal:
                log.info("stage message dropped", job_uuid=job.uuid, type=wrapped.type, why=str(illegal))
                return False
            if to is None:
                await self.store.post(job.uuid, wrapped)
            elif not await self.store.advance(job.uuid, job.row.state, state, wrapped):
                log.warning("stale stage message dropped", job_uuid=job.uuid, type=wrapped.type)
                return False
            job.move(state)
            job.seen.add(wrapped.type)
            if job.connection is not None:
                job.connection.post(wrapped.frame)
        return True

    async def fail(self, job: Job, found: Problem, by: Participant = Participant.MINER) -> None:
        """End a job that the miner gives up; its executor is killed at once."""
        message = to_wire(found, job.uuid, reported_by=by)
        state = JobState.FAILED if isinstance(message, V0JobFailedRequest) else JobState.HORDE_FAILED
        if await self.record(job, message, state, by):
            log.warning("job failed", job_uuid=job.uuid, code=found.code, message=found.message)
            self.end(job, 0)

    async def finish(self, job: Job, message: Message, to: JobState) -> None:
        """The executor ended the job; it may tidy up."""
        if len(message.to_frame().encode()) > MAX_MINER_FRAME_BYTES:
            await self.fail(job, problem("output_too_large", "the result is larger than a message can be"))
        elif await self.record(job, message, to):
            log.info("job ended", job_uuid=job.uuid, state=to.value)
            self.end(job, self.settings.executor_exit_limit)

    def end(self, job: Job, tidy_up_s: float) -> None:
        job.finish(tidy_up_s)
        if tidy_up_s == 0 and job.channel is not None:
            self.spawn(job.channel.close(1000, "the job is over"))
        self.drop_if_done(job)

    def acknowledged(self, job: Job) -> None:
        """The finished receipt came: nothing will be re-sent."""
        job.acknowledged = True
        self.drop_if_done(job)

    def drop_if_done(self, job: Job) -> None:
        if job.ended and job.acknowledged and job.channel is None:
            self.forget(job)

    # validators' connections

    async def attach_all(self, connection: Connection) -> None:
        """A validator (re)connected: its pending jobs nobody else looks after are re-sent here (G47)."""
        self._connections.setdefault(connection.validator, []).append(connection)
        for row in await self.store.pending(connection.validator):
            job = self.jobs.get(row.job_uuid) or self.add(Job(row))
            if not (job.claimed and job.connection and job.connection.alive):
                await self.attach(job, connection)

    async def attach(self, job: Job, connection: Connection, *, claim: bool = False) -> None:
        """Send the job's messages from now on here, after all of those so far, in order."""
        async with job.outbox:
            if not connection.alive:
                return
            for message in await self.store.messages(job.uuid):
                connection.post(message.frame)
            job.connection, job.claimed = connection, claim

    async def detach(self, connection: Connection) -> None:
        """A connection ended: its jobs go to the validator's newest one, or wait."""
        others = self._connections.get(connection.validator, [])
        with contextlib.suppress(ValueError):
            others.remove(connection)
        if not others:
            self._connections.pop(connection.validator, None)
        for job in [job for job in self.jobs.values() if job.connection is connection]:
            job.connection, job.claimed = None, False
            newest = next((other for other in reversed(others) if other.alive), None)
            if newest is not None:
                await self.attach(job, newest)

    # restart and housekeeping

    async def restore(self) -> list[Job]:
        """The jobs that were under way when the miner last stopped."""
        return [await self._restored(row) for row in await self.store.under_way()]

    async def _restored(self, row: JobRow) -> Job:
        seen = {message.type for message in await self.store.messages(row.job_uuid)}
        return self.add(Job(row, seen=seen, requested=row.request is not None))

    def forget_older_than(self, moment: float) -> None:
        for job in [job for job in self.jobs.values() if job.ended and job.row.created_at < moment]:
            self.forget(job)

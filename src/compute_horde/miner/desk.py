"""The miner's jobs at work: accepted, moved on, re-sent, ended. Knows connections, not their frames."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import structlog

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.lifecycle.states import IllegalTransition, JobState, transition
from compute_horde.miner.cancelling import as_cancelled, cancelled, is_cancelled
from compute_horde.miner.connection import Connection
from compute_horde.miner.job import Job, envelope
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.store import Clock, JobRow, JobStore
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, Message
from compute_horde.protocol.compat.cancelled import CANCELLED_CODE
from compute_horde.protocol.enums import Participant
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.validator_miner import V0HordeFailedRequest, V0JobFailedRequest
from compute_horde.transport.channel import Channel

log = structlog.get_logger(__name__)


class Desk:
    """The registry of jobs and of validators' connections. One event loop; the database is the truth."""

    def __init__(self, settings: MinerSettings, store: JobStore, clock: Clock = time.time) -> None:
        self.settings, self.store, self.clock = settings, store, clock
        self.jobs: dict[str, Job] = {}
        self.tokens: dict[str, Job] = {}
        self._connections: dict[str, list[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: dict[asyncio.Task[Any], Channel] = {}
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
        """Give up the jobs whose executors are about to be killed, and tell their validators; nothing begins any
        more. Jobs whose executors live elsewhere stay as they are stored.
        """
        for job in list(self.jobs.values()):
            if job.watched and not job.ended:
                await self.fail(job, problem("executor_disconnected", "The miner was stopped"))
            job.finish(0)
            if job.channel is not None:
                self.spawn(job.channel.close(1001, "the miner is stopping"))
        self._stopped = True
        for connection in [one for several in self._connections.values() for one in several]:
            connection.finish()

    async def drain(self, limit_s: float = 1) -> None:
        """Let tasks and sessions end, so that none is in the middle of a transaction; then end them."""
        await self._wait(limit_s)
        for channel in list(self._sessions.values()):
            await channel.close(1001, "the miner is stopping")
        await self._wait(limit_s)
        late = list(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _wait(self, limit_s: float) -> None:
        if waited := {*self._tasks, *self._sessions}:
            await asyncio.wait(waited, timeout=limit_s)

    @contextlib.contextmanager
    def session(self, channel: Channel) -> Iterator[None]:
        """For the length of a session: :meth:`drain` closes its channel and waits for its end."""
        if (task := asyncio.current_task()) is None:
            raise RuntimeError("a session runs in a task")
        self._sessions[task] = channel
        try:
            yield
        finally:
            del self._sessions[task]

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
            for connection in job.listeners:
                connection.post(wrapped.frame)
        return True

    async def fail(self, job: Job, found: Problem, by: Participant = Participant.MINER) -> None:
        """End a job that the miner gives up; its executor is killed at once.

        One that was to be cancelled has then been cancelled, whatever became of its executor.
        """
        if job.row.cancel_requested and found.code != CANCELLED_CODE:
            found = cancelled(job.row.state, found.message)
        message = to_wire(found, job.uuid, reported_by=by)
        state = JobState.FAILED if isinstance(message, V0JobFailedRequest) else JobState.HORDE_FAILED
        state = JobState.CANCELLED if is_cancelled(message) else state
        if await self.record(job, message, state, by):
            log.warning("job failed", job_uuid=job.uuid, code=found.code, message=found.message)
            self.end(job, 0)

    async def finish(self, job: Job, message: Message, to: JobState) -> None:
        """The executor ended the job; it may tidy up. A failure of a job that was to be cancelled is its end."""
        if job.row.cancel_requested and isinstance(message, V0JobFailedRequest | V0HordeFailedRequest):
            message = as_cancelled(message, job.row.state)
        if is_cancelled(message):
            to = JobState.CANCELLED
        if len(message.to_frame().encode()) > MAX_MINER_FRAME_BYTES:
            await self.fail(job, problem("output_too_large", "the result is larger than a message can be"))
        elif await self.record(job, message, to):
            log.info("job ended", job_uuid=job.uuid, state=to.value)
            self.end(job, self.settings.executor_exit_limit)

    def end(self, job: Job, tidy_up_s: float) -> None:
        job.finish(tidy_up_s)
        job.logs.close("ended")
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
        """A validator (re)connected: of its pending jobs, those that no connection claims are re-sent here (G47).

        Validators of the existing network open one connection a job and reconnect without saying for which: such
        a job is told to all of them, and they ignore what is not theirs (section 6.4).
        """
        self._connections.setdefault(connection.validator, []).append(connection)
        for row in await self.store.pending(connection.validator):
            job = self.jobs.get(row.job_uuid) or self.add(Job(row))
            if not (job.claimed and any(listener.alive for listener in job.listeners)):
                await self.attach(job, connection)

    async def attach(self, job: Job, connection: Connection, *, claim: bool = False, again: bool = False) -> None:
        """Send the job's messages here from now on, after all of those so far, in order.

        ``claim``: only here. ``again``: re-send those so far even where the job is attached already.
        """
        async with job.outbox:
            if not connection.alive:
                return
            if again or connection not in job.listeners:
                for message in await self.store.messages(job.uuid):
                    connection.post(message.frame)
            job.listeners.add(connection)
            if claim:
                job.listeners, job.claimed = {connection}, True

    async def detach(self, connection: Connection) -> None:
        """A connection ended: its jobs go to the validator's other ones, or wait."""
        others = self._connections.get(connection.validator, [])
        with contextlib.suppress(ValueError):
            others.remove(connection)
        if not others:
            self._connections.pop(connection.validator, None)
        for job in [job for job in self.jobs.values() if connection in job.listeners]:
            job.listeners.discard(connection)
            if not job.listeners:
                job.claimed = False
                await self._offer(job, others)

    async def _offer(self, job: Job, connections: list[Connection]) -> None:
        for connection in list(connections):
            if not job.acknowledged and not self._stopped:
                await self.attach(job, connection)

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

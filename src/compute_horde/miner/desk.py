"""The miner's jobs at work: accepted, moved on, ended. What is stored goes to the validator by :mod:`.outbox`."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Literal

import structlog

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.lifecycle.states import IllegalTransition, JobState, transition
from compute_horde.miner.cancelling import as_cancelled, cancelled, is_cancelled
from compute_horde.miner.job import Job, envelope
from compute_horde.miner.retries import Retries, Stopping
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.store import Clock, Envelope, JobRow, JobStore
from compute_horde.miner.timers import Timers
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, Message
from compute_horde.protocol.compat.cancelled import CANCELLED_CODE
from compute_horde.protocol.enums import Fault, Participant
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.validator_miner import V0HordeFailedRequest, V0JobFailedRequest
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.telemetry.miner import MinerMetrics
from compute_horde.telemetry.outages import Outages
from compute_horde.telemetry.vocabulary import Refusal
from compute_horde.transport.channel import Channel

log = structlog.get_logger(__name__)

MAX_KEPT = 1000
"""Receipts and cancels that wait for the database in memory; stage messages wait one a job."""

GOING_AWAY = 1001
"""The close code of a miner that stops: nothing is over, dial again."""


class Desk:
    """The registry of jobs. One event loop, one process a database; the database is the truth."""

    def __init__(
        self,
        settings: MinerSettings,
        store: JobStore,
        clock: Clock = time.time,
        timers: Callable[[], Timers] = Timers,
        metrics: MinerMetrics | None = None,
    ) -> None:
        self.settings, self.store, self.clock = settings, store, clock
        self.make_timers = timers
        self.metrics = metrics or MinerMetrics()
        self.retries = Retries(Outages(self.metrics))
        self.jobs: dict[str, Job] = {}
        self.tokens: dict[str, Job] = {}
        self.stopped = False
        self._kept = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: dict[asyncio.Task[Any], Channel] = {}

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something beside everything else; a failure of it is logged. Nothing begins once stopped."""
        if self.stopped:
            work.close()
            return
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Stopping:
            log.warning("the miner stops before the database took all that it was to take")
        except Exception:
            log.exception("a task of the miner failed")

    async def end_jobs(self, limit_s: float = 1) -> None:
        """Fail every job under way and have its executor killed, as far as that can be stored in time."""
        stopped = problem("executor_disconnected", "The miner was stopped")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                for job in [job for job in self.jobs.values() if not job.ended]:
                    await self.fail(job, stopped)

    def stop(self) -> None:
        """Nothing begins any more, and executors whose job goes on are told to dial again. Jobs stay as they are
        stored; what has ended is on its way to the disk.
        """
        for job in self.jobs.values():
            job.timers.clear()
            if job.channel is not None and not job.ended:
                self.spawn(job.channel.close(GOING_AWAY, "the miner is stopping"))
        self.stopped = True
        self.retries.stop()

    async def drain(self, limit_s: float = 1) -> None:
        """Let tasks and sessions end, so that none is in the middle of a transaction; then end them."""
        await self._wait(limit_s)
        for channel in list(self._sessions.values()):
            await channel.close(GOING_AWAY, "the miner is stopping")
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
        """Drop a job that has ended; whoever asks for it by name finds it in the database."""
        self.jobs.pop(job.uuid, None)
        self.tokens.pop(job.row.token, None)

    async def find(self, job_uuid: str) -> Job | None:
        """A job under way, or one that ended, from the database. :raises DatabaseUnavailable:"""
        if job := self.jobs.get(job_uuid):
            return job
        row = await self.store.find(job_uuid, frames=False)
        return self.jobs.get(job_uuid) or (Job(row) if row else None)

    def deadline(self, job: Job, name: str, seconds: float, code: str, text: str) -> None:
        """Fail the job with this problem when the time is up."""
        job.timers.arm(name, seconds, lambda: self.spawn(self.fail(job, problem(code, text))))

    async def keep(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        """Store something that nobody waits for: now or, while the database does not take it, as soon as it does.

        :raises DatabaseUnavailable: too much is kept already.
        """
        try:
            await work()
        except DatabaseUnavailable:
            if self._kept >= MAX_KEPT:
                raise
            self.spawn(self._keep(work, what))

    async def _keep(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        self._kept += 1
        try:
            await self.retries.until_done(work, what)
        finally:
            self._kept -= 1

    async def record(
        self, job: Job, message: Message, to: JobState | None = None, by: Participant = Participant.EXECUTOR
    ) -> bool:
        """Store a message about a job together with the state that it brings, then send it on.

        While the database does not take it, it is kept and tried again. False: it came too late, twice, or out of
        order, and was dropped.

        :raises Stopping: it was not stored, and will not be.
        """
        wrapped = envelope(message)
        return await self.retries.until_done(lambda: self._record(job, wrapped, to, by), wrapped.type)

    async def _record(self, job: Job, message: Envelope, to: JobState | None, by: Participant) -> bool:
        async with job.outbox:
            try:
                state = transition(job.row.state, to, by) if to else job.row.state
            except IllegalTransition as illegal:
                log.info("stage message dropped", job_uuid=job.uuid, type=message.type, why=str(illegal))
                return self._dropped(job, message, by, Refusal.ILLEGAL_TRANSITION)
            if to is None and (job.ended or message.type in job.seen):
                return self._dropped(job, message, by, Refusal.ILLEGAL_TRANSITION)
            if not await self._store(job, state if to else None, message):
                log.warning("stale stage message dropped", job_uuid=job.uuid, type=message.type)
                return self._dropped(job, message, by, Refusal.STALE_CLAIM)
            if to is not None:
                left = job.row.state
                self.metrics.stage(left, state, job.row.executor_class, job.move(state, self.clock()))
            job.seen.add(message.type)
            for connection in job.listeners:
                connection.post(message.frame)
        return True

    def _dropped(self, job: Job, message: Envelope, by: Participant, why: Refusal) -> Literal[False]:
        """What the miner itself wanted to say too late counts as nothing."""
        if by is not Participant.MINER:
            self.metrics.refused(Refusal.REPEATED if message.type in job.seen else why)
        return False

    async def _store(self, job: Job, to: JobState | None, message: Envelope) -> bool:
        if to is None:
            await self.store.post(job.uuid, message)
            return True
        if await self.store.advance(job.uuid, job.row.state, to, message):
            return True
        return await self.store.put_back(job.row._replace(state=to), message)

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
            self._end(job, 0, found.fault)

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
            self._end(job, self.settings.executor_exit_limit, _fault(message))

    def _end(self, job: Job, tidy_up_s: float, fault: Fault | None) -> None:
        """The closed connection tells the executor that its last message is stored, or no longer wanted."""
        self.metrics.ended(job.row.state, fault, max(0.0, self.clock() - job.row.created_at))
        job.finish(tidy_up_s)
        job.logs.close("ended")
        if job.channel is not None:
            self.spawn(self.acknowledge(job.channel))
        self.drop_if_done(job)

    async def acknowledge(self, channel: Channel) -> None:
        """The executor forgets the job's result with this. :raises Stopping: it keeps it."""
        await self.settled()
        await channel.close(1000, "the job is over")

    def settling(self) -> "asyncio.Future[None]":
        """Done when what was stored before is on the disk; never, when the miner stops meanwhile."""
        done = asyncio.get_running_loop().create_future()

        async def settle() -> None:
            await self.settled()
            done.set_result(None)

        self.spawn(settle())
        return done

    async def settled(self) -> None:
        """Return when what was stored before is on the disk, however long that takes."""
        await self.retries.until_done(self.store.settled, "the way to the disk")

    def acknowledged(self, job: Job) -> None:
        """The finished receipt came: nothing will be re-sent."""
        job.acknowledged = True
        self.drop_if_done(job)

    def drop_if_done(self, job: Job) -> None:
        """Keep an ended job only while its executor is connected, or a validator's connection hears of it."""
        unheard = not job.listeners or job.acknowledged
        if job.ended and job.channel is None and unheard:
            self.forget(job)

    def forget_ended(self, before: float) -> None:
        """Let go of what validators that stay connected never acknowledged."""
        for job in [job for job in self.jobs.values() if job.ended and job.channel is None]:
            if job.row.created_at < before:
                self.forget(job)

    # restart

    async def restore(self) -> list[Job]:
        """The jobs that were under way when the miner last stopped."""
        return [await self._restored(row) for row in await self.store.under_way()]

    async def _restored(self, row: JobRow) -> Job:
        seen = {message.type for message in await self.store.messages(row.job_uuid)}
        job = Job(row, seen=seen, requested=row.request is not None, restored=True, timers=self.make_timers())
        job.since = await self.store.last_message_at(row.job_uuid) or row.created_at
        job.met = row.state is not JobState.ACCEPTED
        return self.add(job)


def _fault(message: Message) -> Fault | None:
    """Whose doing the end was that an executor reports: ``nobody`` where it does not say; None: all went well."""
    if not isinstance(message, V0JobFailedRequest | V0HordeFailedRequest):
        return None
    found = Problem.from_context(message.context, message.message)
    return found.fault if found else Fault.NOBODY

"""Which of a validator's connections hears of which job, and what it missed is sent again (G47)."""

import contextlib
from functools import partial

from compute_horde.miner.connection import Connection
from compute_horde.miner.desk import Desk
from compute_horde.miner.job import Job
from compute_horde.storage.errors import DatabaseUnavailable


class Outbox:
    """The registry of validators' connections. Each job's messages go out in the order in which they were stored.

    Validators of the existing network open one connection a job and reconnect without saying for which: a job that
    no connection claims is told to all of its validator's, and they ignore what is not theirs (section 6.4).
    """

    def __init__(self, desk: Desk) -> None:
        self.desk, self._store = desk, desk.store
        self._connections: dict[str, list[Connection]] = {}

    @property
    def validators(self) -> int:
        """How many are connected, whatever the number of their connections."""
        return len(self._connections)

    def finish(self, code: int) -> None:
        """Let every connection send what is queued, then close."""
        for connections in self._connections.values():
            for connection in connections:
                connection.finish(code)

    async def enter(self, connection: Connection) -> None:
        """A validator (re)connected: its jobs under way that no connection claims are told here from now on.

        What ended before it heard of it follows beside everything else, as fast as the connection takes it.
        """
        self._connections.setdefault(connection.validator, []).append(connection)
        for job in [job for job in self.desk.jobs.values() if job.row.validator == connection.validator]:
            if not job.ended and not _claimed(job):
                await self._attach_now_or_soon(job, connection)
        self.desk.spawn(self._replay(connection))

    async def _attach_now_or_soon(self, job: Job, connection: Connection) -> None:
        try:
            await self.attach(job, connection)
        except DatabaseUnavailable:
            self.desk.spawn(self._attach(job, connection))

    async def _attach(self, job: Job, connection: Connection) -> None:
        await self.desk.retries.until_done(partial(self.attach, job, connection), "replay")

    async def _replay(self, connection: Connection) -> None:
        """The jobs that ended without a finished receipt, oldest first."""
        retries = self.desk.retries
        for job_uuid in await retries.until_done(partial(self._store.pending, connection.validator), "replay"):
            await connection.room()
            if not connection.alive:
                return
            if (job := await retries.until_done(partial(self._unheard, job_uuid), "replay")) is not None:
                await self._attach(job, connection)

    async def _unheard(self, job_uuid: str) -> Job | None:
        """A job that has something to tell, unless a connection claims it or its finished receipt has come."""
        if (job := self.desk.jobs.get(job_uuid)) is None:
            row = await self._store.find(job_uuid, frames=False)
            if row is None or row.acknowledged or not row.state.is_terminal:
                return None
            job = self.desk.jobs.get(job_uuid) or Job(row)
        return None if job.acknowledged or _claimed(job) else job

    async def attach(self, job: Job, connection: Connection, *, claim: bool = False, again: bool = False) -> None:
        """Send the job's messages here from now on, after all of those so far, in order.

        ``claim``: only here. ``again``: re-send those so far even where the job is attached already.

        :raises DatabaseUnavailable: nothing has changed.
        """
        async with job.outbox:
            if not connection.alive:
                return
            if again or connection not in job.listeners:
                for message in await self._store.messages(job.uuid):
                    connection.post(message.frame)
            job.listeners.add(connection)
            if job.ended and not job.acknowledged:
                self.desk.jobs.setdefault(job.uuid, job)
            if claim:
                job.listeners, job.claimed = {connection}, True

    def leave(self, connection: Connection) -> None:
        """A connection ended: its jobs go to the validator's other ones, or wait in the database."""
        others = self._connections.get(connection.validator, [])
        with contextlib.suppress(ValueError):
            others.remove(connection)
        if not others:
            self._connections.pop(connection.validator, None)
        for job in [job for job in self.desk.jobs.values() if connection in job.listeners]:
            job.listeners.discard(connection)
            if not job.listeners:
                job.claimed = False
                self._offer(job, others)

    def _offer(self, job: Job, connections: list[Connection]) -> None:
        if job.acknowledged or not connections:
            self.desk.drop_if_done(job)
            return
        for connection in list(connections):
            self.desk.spawn(self._attach(job, connection))


def _claimed(job: Job) -> bool:
    return job.claimed and any(listener.alive for listener in job.listeners)

"""One job in this process's hands: its folder, its link, its journal, from the claim to the clean-up."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from compute_horde.executor import folders as job_folders
from compute_horde.executor.counting import Counting
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.folders import JobFolders
from compute_horde.executor.job import JobRun
from compute_horde.executor.journal import Journal
from compute_horde.executor.link import LinkLost, MinerLink
from compute_horde.executor.network import WebClient
from compute_horde.executor.patience import engine_willing, settled, unbroken
from compute_horde.executor.runtime import ContainerRuntime
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.state import INITIAL, JOB, LAST, load
from compute_horde.executor.timing import Clocks
from compute_horde.protocol.base import Message
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.validator_miner import V0InitialJobRequest
from compute_horde.telemetry.logs import bind_job
from compute_horde.telemetry.vocabulary import Adoption
from compute_horde.transport.channel import Dialer

log = structlog.get_logger(__name__)

LAST_WORDS_SECONDS = 2.0
"""What a stopped executor gets to deliver a result that exists."""

REMOVE_SECONDS = 60.0
"""How long the engine may take to remove a container: one that hangs would hold up the executor's end for ever."""


class Session:
    """Runs once. ``prepare`` looks at the engine; it is awaited once the folder is claimed, and may be again.

    ``left_container``: the job's container could not be removed.
    """

    def __init__(
        self,
        settings: ExecutorSettings,
        runtime: ContainerRuntime,
        dialer: Dialer,
        web: WebClient,
        clocks: Clocks,
        token: str,
        prepare: Callable[[], Coroutine[Any, Any, None]],
        counting: Counting,
    ) -> None:
        self._settings, self._runtime, self._dialer, self._web = settings, runtime, dialer, web
        self._clocks, self._prepare, self._counting = clocks, prepare, counting
        self.token, self._folders = token, JobFolders(settings.folder, token)
        self.left_container = False
        loop = asyncio.get_running_loop()
        self._let_go: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()

    async def release(self) -> None:
        """Let go of the job. Returns when :meth:`run` has ended."""
        if not self._let_go.done():
            self._let_go.set_result(None)
        await asyncio.wait({self._ended})

    async def run(self, miner_url: str, startup_deadline: float) -> None:
        """See :meth:`~.service.Executor.run`. ``startup_deadline``: on the clock ``elapsed``."""
        with bind_job(_job_of(self.token), peer=miner_url):
            await self._claimed_run(miner_url, startup_deadline)

    async def _claimed_run(self, miner_url: str, startup_deadline: float) -> None:
        try:
            claimed = await self._first_of(self._claim())
            if claimed is not None and claimed.result() is False:
                self._counting.adopted(Adoption.STANDBY)
            elif claimed is not None:
                await self._run(miner_url, startup_deadline, claimed.result())
        finally:
            self._folders.release()
            self._ended.set_result(None)

    async def _claim(self) -> bool | OSError:
        """Whether the job is ours now. What keeps us from it is told to the miner."""
        try:
            job_folders.prepare_work_dir(self._settings.folder)
            return await self._folders.claim(self._clocks)
        except OSError as error:
            return error

    async def _run(self, miner_url: str, startup_deadline: float, claimed: bool | OSError) -> None:
        folders, clocks = self._folders, self._clocks
        journal = Journal(folders.root, clocks, load(folders.root, self.token) if claimed is True else None)
        link = MinerLink(
            self._dialer,
            miner_url,
            self.token,
            clocks=clocks,
            heard=lambda *what: _remember(journal, *what),
            counting=self._counting,
        )
        job = JobRun(self._settings, self._runtime, link, folders, self._web, journal, clocks, self._counting)
        ending = _Ending(link, job, folders, journal)
        try:
            if (adopted := journal.adopted) is not None:
                log.info("took over a job", stage=adopted.stage.value, over=adopted.over)
                self._counting.took_over(adopted)
                startup_deadline = clocks.elapsed() + adopted.keep_until - clocks.wall()
                link.persist(startup_deadline)
                link.restore(journal.frames.get(INITIAL), journal.frames.get(JOB), cancelled=adopted.cancelled)
            if adopted is not None and adopted.over:
                for message in adopted.messages():
                    link.send(message)
                link.finish(journal.frames[LAST])
            else:
                ending.preparing = asyncio.create_task(self._prepared(claimed, journal.stage_until))
                last = await self._while_linked(link, job.run(startup_deadline, ending.preparing))
                if last is None:
                    return
                frame = last.to_frame()
                journal.keep(LAST, frame)
                journal.note(over=True)  # the same write
                link.finish(frame)
            await self._first_of(ending.deliver())
        except LinkLost as lost:
            log.warning("the executor gives up a job", why=str(lost))
        finally:
            await unbroken(ending.leave() if self._let_go.done() else ending.clean_up())
            self.left_container = ending.left_container

    async def _prepared(self, claimed: bool | OSError, until: float) -> None:
        """A job that had begun waits for an engine that is away, as long as its stage lasts; a new one fails at
        once, and another miner gets it.
        """
        if isinstance(claimed, OSError):
            raise claimed
        await engine_willing(self._prepare, until, self._clocks)
        self._folders.create()

    async def _while_linked(self, link: MinerLink, work: Awaitable[Message]) -> Message | None:
        """The result of ``work``, which is broken off when the link is lost for good, or the job let go of (None).

        :raises LinkLost:
        """
        lost = asyncio.ensure_future(link.lost())
        try:
            done = await self._first_of(work, lost)
            if done is lost:
                raise LinkLost("the miner is gone")
            last: Message | None = done.result() if done is not None else None
            return last
        finally:
            lost.cancel()
            await settled(lost)

    async def _first_of(
        self, work: Awaitable[Any], *others: "asyncio.Future[Any]"
    ) -> "asyncio.Future[Any] | None":
        """``work`` or another, whichever ends first; None when the job is let go of. ``work`` ends with this."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, *others, self._let_go}, return_when=asyncio.FIRST_COMPLETED)
            return next((one for one in (task, *others) if one.done()), None)
        finally:
            task.cancel()
            await settled(task)


class _Ending:
    """What is done when a job is over, or given up, or let go of."""

    def __init__(self, link: MinerLink, job: JobRun, folders: JobFolders, journal: Journal) -> None:
        self._link, self._job, self._folders, self._journal = link, job, folders, journal
        self.preparing: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._removed = self.left_container = False

    async def deliver(self) -> None:
        """Wait until the last message has been delivered, or never can be. May be cancelled."""
        self._tidying = asyncio.create_task(self._tidy())
        await self._link.drained()

    async def clean_up(self) -> None:
        """Leave nothing, but a result that could not be delivered."""
        await self._settle()
        if self._tidying is not None:
            await self._tidying
        delivered = not self._link.finished or await self._link.drained_within(LAST_WORDS_SECONDS)
        if not self._removed:
            await self._remove_container()
        await self._link.close()
        if delivered:
            await self._change_folder(self._folders.remove)

    async def leave(self) -> None:
        """Everything stays for the next who takes the job over."""
        await self._settle()
        await (self._tidying or self._job.execution.release())
        await self._link.close()

    async def _settle(self) -> None:
        if self.preparing is not None:
            self.preparing.cancel()  # the engine that it waits for may hang
            await settled(self.preparing)
        await self._journal.settled()

    async def _tidy(self) -> None:
        """Once the last message is safe, nothing else is needed any more."""
        await self._settle()
        with contextlib.suppress(OSError):
            await self._journal.durable()
            await self._remove_container()
            await self._change_folder(self._folders.empty)

    async def _remove_container(self) -> None:
        self._removed = True
        try:
            async with asyncio.timeout(REMOVE_SECONDS):
                await self._job.execution.close()
        except (JobFailure, TimeoutError) as error:
            self.left_container = True
            why = str(error) or "the engine does not answer"
            log.error("a job's container could not be removed; the next start will", why=why)

    async def _change_folder(self, change: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(change)
        except OSError as error:
            log.error("a job's folder could not be removed", why=error.strerror)


def _job_of(token: str) -> str:
    """The job that a token of our miners begins with, for the log; of another miner's, nothing is told."""
    try:
        return str(uuid.UUID(token[:36]))
    except ValueError:
        return "unknown"


def _remember(journal: Journal, message: Message, frame: str) -> None:
    """What the miner has said, for whoever takes the job over."""
    if isinstance(message, V0CancelJobRequest):
        journal.note(cancelled=True)
    else:
        journal.keep(INITIAL if isinstance(message, V0InitialJobRequest) else JOB, frame)

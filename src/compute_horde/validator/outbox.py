"""Status updates on their way to the facilitator: durable, in order, sent until acknowledged.

The database holds them; memory holds their order, and the frames of the small ones so that a status leaves
without another read.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.validator.outbox_store import OutboxStore
from compute_horde.validator.shrinking import bare, without_bulk

log = structlog.get_logger(__name__)

KEEP_IN_MEMORY_BYTES = 64 * 1024
DISCARD_AT_ONCE = 64
LULL_SECONDS = 0.5


@dataclass(frozen=True)
class Entry:
    """``frame`` is None where it has to be read from the database.

    ``on_disk``: it is not sent before this is done; None: it need not wait.
    """

    id: int
    job_uuid: str
    frame: str | None = None
    on_disk: "asyncio.Task[None] | None" = None


class Outbox:
    """A queue with one reader (the facilitator link) and many writers (the jobs)."""

    def __init__(self, store: OutboxStore) -> None:
        self._store = store
        self._waiting: deque[Entry] = deque()
        self._acknowledged: list[int] = []
        self._filled = asyncio.Event()

    def load(self, statuses: Iterable[tuple[int, str]], on_disk: "asyncio.Task[None] | None" = None) -> None:
        """Take up what an earlier run, or another process, left: ids and jobs, in order."""
        known = {entry.id for entry in self._waiting}.union(self._acknowledged)
        new = [Entry(id_, job_uuid, None, on_disk) for id_, job_uuid in statuses if id_ not in known]
        self._waiting.extend(new)
        self._filled.set()

    def push(self, id_: int, job_uuid: str, frame: str, on_disk: "asyncio.Task[None] | None" = None) -> None:
        """A status whose row is already committed."""
        kept = frame if len(frame) <= KEEP_IN_MEMORY_BYTES else None
        self._waiting.append(Entry(id_, job_uuid, kept, on_disk))
        self._filled.set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def first(self) -> tuple[str, str]:
        """The job and the frame at the head of the queue, once there is one. It stays until it is acknowledged."""
        while True:
            while not self._waiting:
                await self._idle()
            entry = self._waiting[0]
            if entry.on_disk is not None:
                await asyncio.shield(entry.on_disk)
            frame = entry.frame if entry.frame is not None else await self._store.frame(entry.id)
            if frame is not None:
                return entry.job_uuid, frame
            self._waiting.popleft()

    async def _idle(self) -> None:
        """Wait for a status; a lull is used to delete rows, so that no job waits for that."""
        self._filled.clear()
        try:
            async with asyncio.timeout(LULL_SECONDS if self._acknowledged else None):
                await self._filled.wait()
        except TimeoutError:
            await self._flush()

    async def acknowledge(self) -> None:
        """The head of the queue has arrived; rows are deleted some at a time."""
        self._acknowledged.append(self._waiting.popleft().id)
        if len(self._acknowledged) >= DISCARD_AT_ONCE:
            await self._flush()

    async def shrink(self) -> None:
        """The head of the queue is too large for the facilitator: what makes it so is left out, and said so.

        Where that is not enough only the bare status is left, so that it never blocks those behind it.
        """
        entry = self._waiting[0]
        frame = (entry.frame if entry.frame is not None else await self._store.frame(entry.id)) or ""
        small = without_bulk(frame)
        self._waiting[0] = Entry(entry.id, entry.job_uuid, small if len(small) < len(frame) else bare(frame))

    async def close(self) -> None:
        await self._flush()

    async def _flush(self) -> None:
        """While the database is away rows stay: they are sent again at worst, which does no harm."""
        if done := list(self._acknowledged):
            try:
                await self._store.discard(done)
            except DatabaseUnavailable as error:
                log.warning("acknowledged statuses were not deleted", error=str(error))
            else:
                del self._acknowledged[: len(done)]

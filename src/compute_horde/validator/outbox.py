"""Status updates on their way to the facilitator: durable, in order, sent until acknowledged.

The database holds them; memory holds their order, and the frames of the small ones so that a status leaves
without another read.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from compute_horde.protocol.details import FailureDetails, StatusMetadata
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate
from compute_horde.validator.store import Store

KEEP_IN_MEMORY_BYTES = 64 * 1024
DISCARD_AT_ONCE = 64
LULL_SECONDS = 0.5
KEPT_CHARACTERS = 64 * 1024
KEPT_MESSAGE_CHARACTERS = 4 * 1024
KEPT_CONTEXT_CHARACTERS = 16 * 1024
KEPT_NOTICES = 20
KEPT_NOTICE_CHARACTERS = 500
"""All kept together fit into the smallest frame of the existing network, 1 MiB, even where JSON needs six bytes
for a character."""

TOO_LARGE = "The result was too large for the facilitator: artifacts were left out and the output was cut"


@dataclass(frozen=True)
class Entry:
    """``frame`` is None where it has to be read from the database."""

    id: int
    frame: str | None = None


def without_bulk(frame: str) -> str:
    """The same status without artifacts and hashes, and with the end of the output only."""
    update = V0JobStatusUpdate.model_validate_json(frame)
    if update.metadata and (failure := update.metadata.job_failure_details):
        metadata = StatusMetadata(job_failure_details=_shortened(failure))
        return update.model_copy(update={"metadata": metadata}).to_frame()
    if update.metadata is None or (response := update.metadata.miner_response) is None:
        return bare(frame)
    small = response.model_copy(
        update={
            "docker_process_stdout": response.docker_process_stdout[-KEPT_CHARACTERS:],
            "docker_process_stderr": response.docker_process_stderr[-KEPT_CHARACTERS:],
            "artifacts": None,
            "upload_results": None,
            "image_digest": (response.image_digest or "")[:KEPT_NOTICE_CHARACTERS] or None,
            "output_hashes": None,
            "notices": [*_first(response.notices or []), TOO_LARGE],
        }
    )
    metadata = update.metadata.model_copy(update={"miner_response": small})
    return update.model_copy(update={"metadata": metadata}).to_frame()


def bare(frame: str) -> str:
    """The status and nothing else."""
    update = V0JobStatusUpdate.model_validate_json(frame)
    return V0JobStatusUpdate(uuid=update.uuid, status=update.status).to_frame()


def _first(notices: list[str]) -> list[str]:
    return [notice[:KEPT_NOTICE_CHARACTERS] for notice in notices[:KEPT_NOTICES]]


def _shortened(failure: FailureDetails) -> FailureDetails:
    """Without most of its output. The context stays if it is small: it tells a cancelled job from a failed one."""
    context = failure.context if len(str(failure.context)) <= KEPT_CONTEXT_CHARACTERS else None
    return failure.model_copy(
        update={
            "message": failure.message[:KEPT_MESSAGE_CHARACTERS],
            "context": context,
            "docker_process_stdout": (failure.docker_process_stdout or "")[-KEPT_CHARACTERS:],
            "docker_process_stderr": (failure.docker_process_stderr or "")[-KEPT_CHARACTERS:],
        }
    )


class Outbox:
    """A queue with one reader (the facilitator link) and many writers (the jobs)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[Entry] = deque()
        self._acknowledged: list[int] = []
        self._filled = asyncio.Event()

    async def load(self) -> None:
        """Take up what an earlier run left."""
        self._waiting.extend(Entry(id_) for id_ in await self._store.unsent())
        self._filled.set()

    def push(self, id_: int, frame: str) -> None:
        """A status whose row is already committed."""
        self._waiting.append(Entry(id_, frame if len(frame) <= KEEP_IN_MEMORY_BYTES else None))
        self._filled.set()

    async def first(self) -> str:
        """The frame at the head of the queue, once there is one. It stays there until :meth:`acknowledge`."""
        while True:
            while not self._waiting:
                await self._idle()
            entry = self._waiting[0]
            frame = entry.frame if entry.frame is not None else await self._store.frame(entry.id)
            if frame is not None:
                return frame
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
        self._waiting[0] = Entry(entry.id, small if len(small) < len(frame) else bare(frame))

    async def close(self) -> None:
        await self._flush()

    async def _flush(self) -> None:
        if done := list(self._acknowledged):
            await self._store.discard(done)
            del self._acknowledged[: len(done)]

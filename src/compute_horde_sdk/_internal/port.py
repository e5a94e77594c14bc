"""The port between the client and a facilitator: what is asked, and what comes back, in the library's own words.

:class:`~compute_horde_sdk._internal.wire.session.Session` is the real one. Nothing here imports pydantic or httpx.
"""

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from compute_horde.protocol.extensions import Extension
from compute_horde_sdk._internal.exceptions import ComputeHordeJobError
from compute_horde_sdk._internal.explanation import Explanation
from compute_horde_sdk._internal.models import (
    ComputeHordeJobResult,
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    QueuePlace,
)
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec

if TYPE_CHECKING:  # only types
    from pydantic import JsonValue

    from compute_horde_sdk._internal.specs.volumes import OutputVolume


@dataclass(frozen=True)
class Order:
    """A job to create.

    * ``queue``: its ``job_queue``; empty for none
    * ``cross_validates``: uuid of the job that this one repeats on the trusted miner
    * ``streaming_certificate``: PEM, of a streaming job
    """

    spec: ComputeHordeJobSpec
    validator_hotkey: str
    queue: str = ""
    on_trusted_miner: bool = False
    cross_validates: str | None = None
    streaming_certificate: str | None = None


@dataclass(frozen=True)
class StreamingServer:
    """Where a streaming job listens. ``certificate``: PEM; all empty until the job is ready to stream."""

    certificate: str = ""
    address: str = ""
    port: int = 0


@dataclass(frozen=True)
class JobSnapshot:
    """All that the facilitator says of a job at one moment.

    * ``order``: the body it was created with, as echoed
    * ``place``: where it stands while it waits
    * ``attempt`` of ``attempts``: the latest; None where the facilitator does not tell how many are made at most
    """

    uuid: str
    status: ComputeHordeJobStatus
    history: tuple[ComputeHordeJobStatusEntry, ...]
    created_at: dt.datetime
    result: ComputeHordeJobResult | None = None
    error: ComputeHordeJobError | None = None
    executor_class: str = ""
    docker_image: str = ""
    job_namespace: str | None = None
    queue: str = ""
    on_trusted_miner: bool = False
    streaming: StreamingServer = field(default_factory=StreamingServer)
    run_cross_validation: bool = False
    trusted_job_uuid: str | None = None
    cross_validates: str | None = None
    cancel_requested: bool = False
    place: QueuePlace | None = None
    attempt: int = 1
    attempts: int | None = None
    order: Mapping[str, "JsonValue"] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class StatusChange:
    """One new entry of a job's history.

    * ``whole``: result and error are all there is to know of the end
    * ``place``, ``attempts``: what came with it of the queue, and of how many attempts are made at most
    """

    job_uuid: str
    entry: ComputeHordeJobStatusEntry
    whole: bool
    result: ComputeHordeJobResult | None = None
    error: ComputeHordeJobError | None = None
    place: QueuePlace | None = None
    attempts: int | None = None


@dataclass(frozen=True)
class PlaceChange:
    """A waiting job's new place; no part of its history."""

    job_uuid: str
    place: QueuePlace


Change = StatusChange | PlaceChange


@dataclass(frozen=True)
class JobQuery:
    """Which of the user's jobs. ``page`` counts from 1.

    ``before``: only jobs that come after this one in newest-first order; empty begins with the newest. Not None
    takes the place of ``page``. ``before`` and ``pending`` work only where the facilitator announced ``queues``.
    """

    page: int = 1
    page_size: int = 10
    queue: str | None = None
    pending: bool | None = None
    before: str | None = None


@dataclass(frozen=True)
class JobList:
    """One page. ``more``: whether another follows. ``count``: all jobs that match."""

    jobs: tuple[JobSnapshot, ...]
    count: int
    more: bool


@dataclass(frozen=True)
class OutputPiece:
    """Text that a running job printed. ``offset``: characters of that stream before it."""

    stream: Literal["stdout", "stderr"]
    offset: int
    text: str


class News(Protocol):
    """One waiter's share of the pushed changes."""

    def refreshing(self) -> None:
        """The job is about to be looked at; what happens from here on counts as new.

        :raises ComputeHordeConnectionError: the client was closed.
        """

    async def next(self, within_s: float) -> Change | None:
        """The next change; None when the job has to be looked at, at the latest after ``within_s``.

        :raises ComputeHordeConnectionError: the client was closed.
        """


class Horde(Protocol):
    """One user's conversation with one facilitator. Every method raises ComputeHordeError and nothing else.

    Creating, looking, listing and cancelling are repeated by the implementation while that makes sense.
    """

    @property
    def connected(self) -> bool:
        """Whether changes are being pushed right now."""

    async def extensions(self) -> frozenset[Extension]:
        """What the facilitator offers beyond the existing network; asks it when nothing was heard of it yet."""

    async def authenticate(self) -> None: ...

    async def create(self, order: Order) -> JobSnapshot:
        """:raises ComputeHordeUnsupportedError: the job wishes for what the facilitator cannot do."""

    async def repeat_on_trusted_miner(
        self, job: JobSnapshot, queue: str, uploads: "Mapping[str, OutputVolume] | None"
    ) -> JobSnapshot:
        """Create the same job again on the trusted miner, linked to ``job``, in ``queue``, with other uploads.

        :raises ComputeHordeValidationError: ``cross_validates`` as its field: the job has its repetition already.
        """

    async def fetch(self, job_uuid: str) -> JobSnapshot: ...

    async def look(self, job_uuid: str) -> JobSnapshot:
        """As ``fetch``, for whoever waits for the job: the looks of many waiters travel together."""

    async def list_jobs(self, query: JobQuery) -> JobList: ...

    def iterate(self, queue: str | None, pending: bool | None) -> AsyncIterator[JobSnapshot]:
        """The jobs of a queue (None: all), of those that have not ended (``pending``: True), that have (False).

        Newest first, none missed and none repeated while jobs are created and end. On every facilitator.
        """

    async def cancel(self, job_uuid: str) -> JobSnapshot:
        """:raises ComputeHordeUnsupportedError: the facilitator cannot cancel."""

    async def explain(self, job_uuid: str) -> Explanation:
        """:raises ComputeHordeUnsupportedError: the facilitator cannot explain."""

    async def report_cheat(self, job_uuid: str, trusted_job_uuid: str, details: "JsonValue") -> str:
        """The facilitator's confirmation."""

    def output(self, job_uuid: str) -> AsyncGenerator[OutputPiece, None]:
        """What the job prints, from the beginning, until it is over or nobody can tell more; never repeated.

        A lost connection is made good. Close it (``aclosing``) when leaving early. Nothing is read ahead of the
        reader. A gap in a stream's offsets is output that was not kept.
        """

    def subscribe(self, job_uuid: str) -> AbstractAsyncContextManager[News]:
        """The job's changes for the length of the context; on entry they are being pushed, or cannot be."""

    async def aclose(self) -> None: ...

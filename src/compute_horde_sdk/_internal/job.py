"""One job, as the facilitator last told of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from compute_horde_sdk._internal.crossvalidation.run import CrossValidationRun
from compute_horde_sdk._internal.crossvalidation.verdict import CrossValidationReport
from compute_horde_sdk._internal.display import job_html
from compute_horde_sdk._internal.exceptions import ComputeHordeJobError
from compute_horde_sdk._internal.explanation import Explanation
from compute_horde_sdk._internal.following import (
    PlaceTeller,
    Teller,
    Tells,
    check_timeout,
    deadline,
    follow_telling,
    follow_until,
)
from compute_horde_sdk._internal.history import attempts_in, latest_attempt, merged, of_latest_attempt
from compute_horde_sdk._internal.lines import LogLine
from compute_horde_sdk._internal.logs import job_lines
from compute_horde_sdk._internal.models import (
    ComputeHordeJobResult,
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    JobAttempt,
    QueuePlace,
)
from compute_horde_sdk._internal.port import Change, JobSnapshot, PlaceChange, StatusChange, StreamingServer
from compute_horde_sdk._internal.streaming import StreamingKeys, not_reached, server_of
from compute_horde_sdk._internal.waiting import follow

if TYPE_CHECKING:  # the client makes jobs, so at run time it is the one that imports
    import datetime as dt

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

    from compute_horde_sdk._internal.client import ComputeHordeClient


class ComputeHordeJob:
    """A job and what is known of it. Made by the client's ``create_job``, ``get_job``, ``iter_jobs`` and others.

    * ``uuid``: the facilitator's name of the job
    * ``status``: where it is
    * ``result``: what it left; None while it is in progress, set in every final state
    * ``error``: why it failed; None while it is in progress, and when it completed
    * ``status_history``: oldest first
    * ``streaming_public_cert``, ``streaming_private_key``: of a streaming job, to connect to it with; only on the
      object that ``create_job`` returned, None on every other
    """

    def __init__(
        self, client: "ComputeHordeClient", snapshot: JobSnapshot, streaming_keys: StreamingKeys | None = None
    ) -> None:
        self._client = client
        self._watchers: set[asyncio.Event] = set()
        self._cross_validation = CrossValidationRun(self, client.cross_validation)
        self.streaming_public_cert: Certificate | None = streaming_keys.certificate if streaming_keys else None
        self.streaming_private_key: RSAPrivateKey | None = streaming_keys.private_key if streaming_keys else None
        self._take(snapshot)

    async def wait(
        self,
        timeout: float | None = None,
        status_callback: Callable[["ComputeHordeJob", ComputeHordeJobStatusEntry], object] | None = None,
        *,
        queue_callback: Callable[["ComputeHordeJob", QueuePlace], object] | None = None,
    ) -> None:
        """Return when the job has ended, in whatever way. Changes are pushed, or polled where they cannot be.

        :param timeout: seconds; None waits as long as it takes.
        :param status_callback: called with the job and a status entry, first for every entry already there, then
            once for each new one; may be a coroutine function. Its exceptions end the waiting and leave here.
        :param queue_callback: called with the job and its place while it waits for an executor, first for the one
            that is known, then for each new one; otherwise as the other.
        :raises ComputeHordeJobTimeoutError: time is up; the job goes on.
        :raises ComputeHordeError: the facilitator cannot be reached for long, or refuses.
        """
        check_timeout(timeout)
        async with deadline(timeout, lambda: f"job {self.uuid} did not end within {timeout} s; {self._is()}"):
            tellers: list[Tells] = []
            if status_callback is not None:
                tellers.append(Teller(self, status_callback))
            if queue_callback is not None:
                tellers.append(PlaceTeller(self, queue_callback))
            if tellers:
                await follow_telling(self, tellers)
            elif self.status.is_in_progress():
                await follow(self, self._client._horde, self._client._wiring)

    async def wait_for_streaming(self, timeout: float | None = None) -> None:
        """Return when the job's server can be reached, at once when it already could.

        :param timeout: seconds; None waits as long as it takes.
        :raises ComputeHordeJobTimeoutError: time is up; the job goes on.
        :raises ComputeHordeJobError: the job has ended. It is ``job.error`` where the job failed.
        :raises ComputeHordeError: the facilitator cannot be reached for long, or refuses.
        """
        check_timeout(timeout)

        async def ready() -> bool:
            return self._was_streaming()

        def late() -> str:
            return f"job {self.uuid} was not ready to stream within {timeout} s; {self._is()}"

        async with deadline(timeout, late):
            if self.status.is_in_progress() and not self._was_streaming():
                await follow_until(self, ready)
        if not self.status.is_in_progress():
            raise self.error or not_reached(self.uuid, self.status)

    async def wait_for_cross_validation(self, timeout: float | None = None) -> CrossValidationReport:
        """Return the verdict, when both this job and its repetition have ended. :meth:`wait` waits for this job.

        A mismatch is reported before this returns, unless the plan says otherwise. A repetition that was never
        created, since the process ended too early, is created now, without uploads. Comparator and report are
        those of ``create_job``, or of this client for a job that was found again. Calls at the same time share the
        work; what the comparator raises leaves here, and nothing is reported.

        :param timeout: seconds; None waits as long as it takes.
        :raises ComputeHordeJobTimeoutError: time is up; both jobs go on.
        :raises ComputeHordeError: the job is not cross-validated (``not_cross_validated``); the facilitator cannot
            be reached for long, or refuses.
        """
        check_timeout(timeout)
        async with deadline(timeout, lambda: f"no verdict on job {self.uuid} within {timeout} s; {self._is()}"):
            return await self._cross_validation.wait()

    def logs(self, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """What the job prints, line by line; stdout and stderr in the order in which they came.

        Of a job that has ended: the lines of its result, stdout first. Of a job under way: what there is by now;
        or with ``follow`` everything, as it comes, until the job has ended, completed from its result. Where the
        horde cannot tell while the job runs, ``follow`` waits for its end.

        Where an attempt failed and another one was made, ``follow`` yields the lines of both, and ``line.attempt``
        tells them apart. The result has those of the last.

        A line ends with LF, CRLF or a CR alone, as progress bars write it. One longer than 64 Ki characters comes
        in parts. Output that was too much to keep is a line with ``gap``.

        :raises ComputeHordeError: refused, or out of reach.
        """
        return job_lines(self, follow)

    async def explain(self) -> Explanation:
        """Why the job has not started, or where it stands: in words, miner by miner, with what would make it run.

        :raises ComputeHordeUnsupportedError: the facilitator cannot explain.
        :raises ComputeHordeError: refused, or out of reach.
        """
        return await self._client._horde.explain(self.uuid)

    async def cancel(self) -> None:
        """Ask the horde to stop the job; :meth:`wait` then waits for it to be ``cancelled``.

        Returns when the facilitator has taken note. What was printed until then is kept in the result. Can be
        called again; changes nothing for a job that has ended, and comes too late for one that just ends.

        :raises ComputeHordeUnsupportedError: the facilitator cannot cancel jobs.
        :raises ComputeHordeError: refused, or out of reach.
        """
        if self.status.is_in_progress():
            self._take(await self._client._horde.cancel(self.uuid))

    async def refresh_from_facilitator(self) -> None:
        """Fetch the job and take over what the facilitator knows.

        :raises ComputeHordeNotFoundError: the facilitator no longer has it.
        :raises ComputeHordeError: the facilitator cannot be reached, or refuses.
        """
        self._take(await self._client._horde.fetch(self.uuid))

    @property
    def created_at(self) -> "dt.datetime":
        """When the facilitator took it."""
        return self._snapshot.created_at

    @property
    def executor_class(self) -> str:
        """The kind of machine that it asks for."""
        return self._snapshot.executor_class

    @property
    def docker_image(self) -> str:
        """The image's reference."""
        return self._snapshot.docker_image

    @property
    def job_namespace(self) -> str | None:
        """Whom the job is for."""
        return self._snapshot.job_namespace

    @property
    def job_queue(self) -> str | None:
        """The queue that it was created in."""
        return self._snapshot.queue or None

    @property
    def on_trusted_miner(self) -> bool:
        """Whether it runs on the validator's own miner."""
        return self._snapshot.on_trusted_miner

    @property
    def queue(self) -> QueuePlace | None:
        """Where it stands while its status is ``queued``, as :meth:`wait` or :meth:`refresh_from_facilitator` last
        heard; None in every other status."""
        return (self._place or QueuePlace()) if self.status is ComputeHordeJobStatus.QUEUED else None

    @property
    def attempt(self) -> int:
        """The attempt that is under way, is made next, or was made last; from 1."""
        return latest_attempt(self.status_history) or self._snapshot.attempt

    @property
    def attempts(self) -> int | None:
        """How many attempts the horde makes at most; None as long as it does not tell."""
        return self._attempts

    @property
    def attempts_made(self) -> list[JobAttempt]:
        """The attempts so far, the one under way included: by whom, how each ended, and why it failed."""
        return attempts_in(self.status_history)

    @property
    def cross_validation(self) -> CrossValidationReport | None:
        """What is known of its cross-validation; None when it was not asked for, as far as the facilitator tells.

        Facilitators of the existing network do not tell: there, :meth:`wait_for_cross_validation` finds out.
        """
        return self._cross_validation.report

    @property
    def streaming_server_cert(self) -> str | None:
        """PEM of the only certificate to trust when connecting; None until the job is ready to stream."""
        return self._streaming_server().certificate or None

    @property
    def streaming_server_address(self) -> str | None:
        """IP address or name; None until the job is ready to stream."""
        return self._streaming_server().address or None

    @property
    def streaming_server_port(self) -> int | None:
        """None until the job is ready to stream."""
        return self._streaming_server().port or None

    def __repr__(self) -> str:
        told = {"uuid": self.uuid, "status": self.status.value, "executor_class": self.executor_class}
        told["docker_image"] = self.docker_image
        if self.error:
            told["error"] = self.error.code
        return f"ComputeHordeJob({', '.join(f'{name}={value!r}' for name, value in told.items())})"

    def _repr_html_(self) -> str:
        return job_html(self)

    def _is(self) -> str:
        return f"it is {self.status.value}"

    def _streaming_server(self) -> StreamingServer:
        found = server_of(of_latest_attempt(self.status_history))
        return found or (self._snapshot.streaming if self.attempt == 1 else StreamingServer())

    def _was_streaming(self) -> bool:
        entries = of_latest_attempt(self.status_history)
        return any(entry.status is ComputeHordeJobStatus.STREAMING_READY for entry in entries)

    def _take(self, snapshot: JobSnapshot) -> None:
        self._snapshot = snapshot
        self.uuid = snapshot.uuid
        self.status = snapshot.status
        self.status_history: list[ComputeHordeJobStatusEntry] = merged([], snapshot.history)
        self._place = snapshot.place
        self._attempts = snapshot.attempts
        self.result: ComputeHordeJobResult | None = snapshot.result
        self.error: ComputeHordeJobError | None = snapshot.error
        self._changed()

    def _take_change(self, change: Change) -> bool:
        """Take over a pushed change; False when the job object has to be fetched to know the rest."""
        if isinstance(change, PlaceChange):
            self._place = change.place
        elif change.whole:
            self._take_entry(change)
        else:
            return False
        self._changed()
        return True

    def _take_entry(self, change: StatusChange) -> None:
        known = len(self.status_history)
        self.status_history = merged(self.status_history, [change.entry])
        if len(self.status_history) > known and self.status.is_in_progress():
            self.status, self.result, self.error = change.entry.status, change.result, change.error
            self._place, self._attempts = change.place, change.attempts or self._attempts

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher.set()

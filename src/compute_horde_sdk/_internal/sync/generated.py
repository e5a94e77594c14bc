"""Made by scripts/make_sync.py from client.py and job.py; change those, and run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from compute_horde.protocol.enums import ExecutorClass
from compute_horde_sdk._internal.address import DEFAULT_FACILITATOR_URL
from compute_horde_sdk._internal.client import ComputeHordeClient as AsyncClient
from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation
from compute_horde_sdk._internal.crossvalidation.verdict import CrossValidationReport
from compute_horde_sdk._internal.exceptions import ComputeHordeError, ComputeHordeJobError
from compute_horde_sdk._internal.explanation import Explanation
from compute_horde_sdk._internal.lines import LogLine
from compute_horde_sdk._internal.models import (
    ComputeHordeJobResult,
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    JobAttempt,
    QueuePlace,
)
from compute_horde_sdk._internal.specs.arguments import shown_as_last_overload
from compute_horde_sdk._internal.specs.job import (
    DOWNLOAD_LIMIT_S,
    EXECUTION_LIMIT_S,
    STREAMING_START_LIMIT_S,
    UPLOAD_LIMIT_S,
    ComputeHordeJobSpec,
)
from compute_horde_sdk._internal.specs.volumes import InputVolume, OutputVolume
from compute_horde_sdk._internal.sync.base import SyncClient, SyncJob

if TYPE_CHECKING:
    import datetime as dt

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate
    from pydantic import JsonValue

    from compute_horde.protocol.signing import Signer


class ComputeHordeJob(SyncJob):
    """A job and what is known of it. Made by the client's ``create_job``, ``get_job``, ``iter_jobs`` and others.

    * ``uuid``: the facilitator's name of the job
    * ``status``: where it is
    * ``result``: what it left; None while it is in progress, set in every final state
    * ``error``: why it failed; None while it is in progress, and when it completed
    * ``status_history``: oldest first
    * ``streaming_public_cert``, ``streaming_private_key``: of a streaming job, to connect to it with; only on the
      object that ``create_job`` returned, None on every other
    """

    @property
    def streaming_public_cert(self) -> Certificate | None:
        return self._job.streaming_public_cert

    @property
    def streaming_private_key(self) -> RSAPrivateKey | None:
        return self._job.streaming_private_key

    @property
    def uuid(self) -> str:
        return self._job.uuid

    @property
    def status(self) -> ComputeHordeJobStatus:
        return self._job.status

    @property
    def status_history(self) -> list[ComputeHordeJobStatusEntry]:
        return self._job.status_history

    @property
    def result(self) -> ComputeHordeJobResult | None:
        return self._job.result

    @property
    def error(self) -> ComputeHordeJobError | None:
        return self._job.error

    def wait(
        self,
        timeout: float | None = None,
        status_callback: Callable[[ComputeHordeJob, ComputeHordeJobStatusEntry], object] | None = None,
        *,
        queue_callback: Callable[[ComputeHordeJob, QueuePlace], object] | None = None,
    ) -> None:
        """Return when the job has ended, in whatever way. Changes are pushed, or polled where they cannot be.

        :param timeout: seconds; None waits as long as it takes.
        :param status_callback: called with the job and a status entry, first for every entry already there, then
            once for each new one. Its exceptions end the waiting and leave here.
        :param queue_callback: called with the job and its place while it waits for an executor, first for the one
            that is known, then for each new one; otherwise as the other.
        :raises ComputeHordeJobTimeoutError: time is up; the job goes on.
        :raises ComputeHordeError: the facilitator cannot be reached for long, or refuses.

        Callbacks run in the client's own thread, and must not call this client.

        """
        self._portal.call(
            self._job.wait(
                timeout,
                None
                if status_callback is None
                else lambda given_0, given_1: status_callback(self._wrap(given_0), given_1),
                queue_callback=None
                if queue_callback is None
                else lambda given_0, given_1: queue_callback(self._wrap(given_0), given_1),
            )
        )

    def wait_for_streaming(self, timeout: float | None = None) -> None:
        """Return when the job's server can be reached, at once when it already could.

        :param timeout: seconds; None waits as long as it takes.
        :raises ComputeHordeJobTimeoutError: time is up; the job goes on.
        :raises ComputeHordeJobError: the job has ended. It is ``job.error`` where the job failed.
        :raises ComputeHordeError: the facilitator cannot be reached for long, or refuses.
        """
        self._portal.call(self._job.wait_for_streaming(timeout))

    def wait_for_cross_validation(self, timeout: float | None = None) -> CrossValidationReport:
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
        return self._portal.call(self._job.wait_for_cross_validation(timeout))

    def logs(self, *, follow: bool = False) -> Iterator[LogLine]:
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
        return self._iterate(self._job.logs(follow=follow), lambda one: one)

    def explain(self) -> Explanation:
        """Why the job has not started, or where it stands: in words, miner by miner, with what would make it run.

        :raises ComputeHordeUnsupportedError: the facilitator cannot explain.
        :raises ComputeHordeError: refused, or out of reach.
        """
        return self._portal.call(self._job.explain())

    def cancel(self) -> None:
        """Ask the horde to stop the job; :meth:`wait` then waits for it to be ``cancelled``.

        Returns when the facilitator has taken note. What was printed until then is kept in the result. Can be
        called again; changes nothing for a job that has ended, and comes too late for one that just ends.

        :raises ComputeHordeUnsupportedError: the facilitator cannot cancel jobs.
        :raises ComputeHordeError: refused, or out of reach.
        """
        self._portal.call(self._job.cancel())

    def refresh_from_facilitator(self) -> None:
        """Fetch the job and take over what the facilitator knows.

        :raises ComputeHordeNotFoundError: the facilitator no longer has it.
        :raises ComputeHordeError: the facilitator cannot be reached, or refuses.
        """
        self._portal.call(self._job.refresh_from_facilitator())

    @property
    def created_at(self) -> dt.datetime:
        """When the facilitator took it."""
        return self._job.created_at

    @property
    def executor_class(self) -> str:
        """The kind of machine that it asks for."""
        return self._job.executor_class

    @property
    def docker_image(self) -> str:
        """The image's reference."""
        return self._job.docker_image

    @property
    def job_namespace(self) -> str | None:
        """Whom the job is for."""
        return self._job.job_namespace

    @property
    def job_queue(self) -> str | None:
        """The queue that it was created in."""
        return self._job.job_queue

    @property
    def on_trusted_miner(self) -> bool:
        """Whether it runs on the validator's own miner."""
        return self._job.on_trusted_miner

    @property
    def queue(self) -> QueuePlace | None:
        """Where it stands while its status is ``queued``, as :meth:`wait` or :meth:`refresh_from_facilitator` last
        heard; None in every other status.
        """
        return self._job.queue

    @property
    def attempt(self) -> int:
        """The attempt that is under way, is made next, or was made last; from 1."""
        return self._job.attempt

    @property
    def attempts(self) -> int | None:
        """How many attempts the horde makes at most; None as long as it does not tell."""
        return self._job.attempts

    @property
    def attempts_made(self) -> list[JobAttempt]:
        """The attempts so far, the one under way included: by whom, how each ended, and why it failed."""
        return self._job.attempts_made

    @property
    def cross_validation(self) -> CrossValidationReport | None:
        """What is known of its cross-validation; None when it was not asked for, as far as the facilitator tells.

        Facilitators of the existing network do not tell: there, :meth:`wait_for_cross_validation` finds out.
        """
        return self._job.cross_validation

    @property
    def streaming_server_cert(self) -> str | None:
        """PEM of the only certificate to trust when connecting; None until the job is ready to stream."""
        return self._job.streaming_server_cert

    @property
    def streaming_server_address(self) -> str | None:
        """IP address or name; None until the job is ready to stream."""
        return self._job.streaming_server_address

    @property
    def streaming_server_port(self) -> int | None:
        """None until the job is ready to stream."""
        return self._job.streaming_server_port

    def __repr__(self) -> str:
        return self._job.__repr__()

    def _repr_html_(self) -> str:
        return self._job._repr_html_()


@dataclass(frozen=True)
class MappedJob:
    """What became of one spec.

    * ``index``: the spec's place among the specs, from 0; ``spec``: itself
    * ``job``: the last job that was created for it; None when none could be
    * ``error``: why it did not complete: ``job.error``, or what creating or waiting raised; None when it completed
    """

    index: int
    spec: ComputeHordeJobSpec
    job: ComputeHordeJob | None
    error: ComputeHordeError | None

    @property
    def result(self) -> ComputeHordeJobResult | None:
        """The job's; None when there is none."""
        return self.job.result if self.job else None


class ComputeHordeClient(SyncClient):
    """One user of a horde.

    Logs in by itself when it first has to. Use it as ``with``, or call :meth:`close` when done with it.

    :param hotkey: signs; anything with ``ss58_address`` and ``sign(bytes)``.
    :param compute_horde_validator_hotkey: SS58 address of the validator that is to run the jobs.
    :param job_queue: a name under which jobs are created and found again; at most 255 characters.
    :param facilitator_url: with or without ``/api/v1``, with or without a slash at the end.
    :param cross_validation: which of the jobs are repeated on the trusted miner, and how they are compared.
    :raises ComputeHordeValidationError: one of them is not usable.
    """

    _job_class = ComputeHordeJob

    @property
    def hotkey(self) -> Signer:
        return self._client.hotkey

    @property
    def compute_horde_validator_hotkey(self) -> str:
        return self._client.compute_horde_validator_hotkey

    @property
    def job_queue(self) -> str | None:
        return self._client.job_queue

    @property
    def facilitator_url(self) -> str:
        return self._client.facilitator_url

    @property
    def cross_validation(self) -> CrossValidation | None:
        return self._client.cross_validation

    def __init__(
        self,
        hotkey: Signer,
        compute_horde_validator_hotkey: str,
        job_queue: str | None = None,
        facilitator_url: str = DEFAULT_FACILITATOR_URL,
        *,
        cross_validation: CrossValidation | None = None,
    ) -> None:
        self._adopt(
            AsyncClient(
                hotkey,
                compute_horde_validator_hotkey,
                job_queue,
                facilitator_url,
                cross_validation=cross_validation,
            )
        )

    @overload
    def create_job(self, job_spec: ComputeHordeJobSpec, on_trusted_miner: bool = False) -> ComputeHordeJob: ...

    @overload
    def create_job(
        self,
        executor_class: ExecutorClass | str,
        job_namespace: str | None,
        docker_image: str,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        artifacts_dir: str | None = None,
        input_volumes: Mapping[str, InputVolume | Path] | None = None,
        output_volumes: Mapping[str, OutputVolume] | None = None,
        run_cross_validation: bool = False,
        trusted_output_volumes: Mapping[str, OutputVolume] | None = None,
        *,
        download_time_limit_sec: int = DOWNLOAD_LIMIT_S,
        execution_time_limit_sec: int = EXECUTION_LIMIT_S,
        upload_time_limit_sec: int = UPLOAD_LIMIT_S,
        streaming: bool = False,
        streaming_start_time_limit_sec: int = STREAMING_START_LIMIT_S,
        on_trusted_miner: bool = False,
        cross_validation: CrossValidation | None = None,
        queue_time_limit_sec: int | None = None,
        attempts: int | None = None,
        retry_backoff_sec: float | None = None,
        priority: int = 0,
    ) -> ComputeHordeJob: ...

    @shown_as_last_overload
    def create_job(self, *args: Any, **kwargs: Any) -> ComputeHordeJob:
        """Sign a job and send it. Returns once the facilitator has it; :meth:`ComputeHordeJob.wait` follows it.

        Takes the fields of a :class:`ComputeHordeJobSpec` one by one, which explains them, or one as the first
        argument: ``create_job(job_spec, on_trusted_miner=False)``. With ``on_trusted_miner`` it runs on the
        validator's own miner.

        :raises ComputeHordeValidationError: an argument is wrong; ``field`` names it.
        :raises ComputeHordeUnsupportedError: a streaming job, without the extra ``streaming``; a job that asks for
            waiting or attempts, of a facilitator of the existing network.
        :raises ComputeHordeValidatorNotConnectedError: the validator is not there.
        :raises ComputeHordeError: refused, or out of reach.
        """
        return self._wrap(self._portal.call(self._client.create_job(*args, **kwargs)))

    def run_until_complete(
        self,
        job_spec: ComputeHordeJobSpec,
        on_trusted_miner: bool = False,
        job_attempt_callback: Callable[[ComputeHordeJob], object] | None = None,
        timeout: float | None = None,
        max_attempts: int = 3,
    ) -> ComputeHordeJob:
        """Create a job and wait for its end; again, as a new job, where sending it again can help.

        That is where ``job.error.retryable``, and ``job.error.fault`` is not ``user``: the horde's own rule for
        another attempt. Returns the job that completed, was cancelled or failed for good, or the last one allowed.
        Local files are read once.

        :param job_attempt_callback: called with each new job.
        :param timeout: seconds for everything together; None takes as long as it takes.
        :param max_attempts: no further job is created after so many attempts, counting those that the horde made
            at each job; so it is the most jobs, too. 0 or less is no limit. ``job_spec.attempts`` is how many the
            horde makes at one job.
        :raises ComputeHordeJobTimeoutError: time is up; the job that ran then goes on.
        :raises ComputeHordeError: a job could not be created, or not be followed; as in :meth:`create_job`.

        Callbacks run in the client's own thread, and must not call this client.

        """
        return self._wrap(
            self._portal.call(
                self._client.run_until_complete(
                    job_spec,
                    on_trusted_miner,
                    None
                    if job_attempt_callback is None
                    else lambda given_0: job_attempt_callback(self._wrap(given_0)),
                    timeout,
                    max_attempts,
                )
            )
        )

    def map_jobs(
        self,
        specs: Iterable[ComputeHordeJobSpec],
        *,
        concurrency: int = 10,
        on_trusted_miner: bool = False,
        timeout: float | None = None,
        max_attempts: int = 1,
    ) -> Iterator[MappedJob]:
        """Run many jobs, and yield what became of each as soon as it has ended: in the order of their ends.

        A spec whose job fails, or cannot be created, does not disturb the others: its ``error`` says why. Leaving
        the loop stops the waiting; jobs under way go on, and are not cancelled.

        :param specs: taken one by one, when there is room; may be endless.
        :param concurrency: jobs under way at a time.
        :param timeout: seconds for each spec.
        :param max_attempts: for each spec, as in :meth:`run_until_complete`.
        :raises ComputeHordeValidationError: an argument is wrong; ``field`` names it.
        """
        return self._iterate(
            self._client.map_jobs(
                specs,
                concurrency=concurrency,
                on_trusted_miner=on_trusted_miner,
                timeout=timeout,
                max_attempts=max_attempts,
            ),
            lambda one: MappedJob(
                one.index, one.spec, None if one.job is None else self._wrap(one.job), one.error
            ),
        )

    def get_job(self, job_uuid: str) -> ComputeHordeJob:
        """One of this hotkey's jobs.

        :raises ComputeHordeNotFoundError: it has no such job.
        :raises ComputeHordeError: refused, or out of reach.
        """
        return self._wrap(self._portal.call(self._client.get_job(job_uuid)))

    def get_jobs(self, page: int = 1, page_size: int = 10) -> list[ComputeHordeJob]:
        """One page of this hotkey's jobs, newest first; those of ``job_queue``, where the client has one.

        :param page: from 1.
        :param page_size: 1 to 256.
        :raises ComputeHordeNotFoundError: there is no such page.
        :raises ComputeHordeError: refused, or out of reach.
        """
        return [self._wrap(one) for one in self._portal.call(self._client.get_jobs(page, page_size))]

    def iter_jobs(self, *, pending: bool | None = None) -> Iterator[ComputeHordeJob]:
        """This hotkey's jobs, newest first; those of ``job_queue``, where the client has one.

        None is missed and none comes twice while jobs are created and end.

        :param pending: True yields only those that have not ended, False only those that have.
        :raises ComputeHordeError: refused, or out of reach.
        """
        return self._iterate(self._client.iter_jobs(pending=pending), self._wrap)

    def authenticate(self) -> None:
        """Log in now; otherwise it happens at the first call.

        :raises ComputeHordeAuthenticationError: refused.
        """
        self._portal.call(self._client.authenticate())

    def report_cheated_job(self, job_uuid: str, trusted_job_uuid: str, *, details: JsonValue = None) -> str:
        """Tell the validator that a job's result is contradicted by the same job on its trusted miner.

        :param details: anything that JSON can hold; goes to the validator.
        :raises ComputeHordeNotFoundError: one of them is no job of this hotkey, or of the wrong kind.
        :raises ComputeHordeError: refused (reported before, for one), or out of reach.
        """
        return self._portal.call(self._client.report_cheated_job(job_uuid, trusted_job_uuid, details=details))

    def __repr__(self) -> str:
        return self._client.__repr__()

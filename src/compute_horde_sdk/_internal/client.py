"""The client: jobs in, jobs out."""

import asyncio
import uuid as uuids
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self, overload

from compute_horde.protocol.enums import ExecutorClass
from compute_horde_sdk._internal.address import DEFAULT_FACILITATOR_URL, facilitator_root
from compute_horde_sdk._internal.attempts import check_attempts, run_attempts
from compute_horde_sdk._internal.crossvalidation.plan import Asked, CrossValidation, check_plan, plan_of
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeError,
    ComputeHordeNotFoundError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.following import check_timeout
from compute_horde_sdk._internal.job import ComputeHordeJob
from compute_horde_sdk._internal.mapping import MappedJob, check_mapping, run_all
from compute_horde_sdk._internal.opening import open_horde
from compute_horde_sdk._internal.port import Horde, JobQuery, Order
from compute_horde_sdk._internal.specs.arguments import check_spec, shown_as_last_overload, spec_of_call
from compute_horde_sdk._internal.specs.job import (
    DOWNLOAD_LIMIT_S,
    EXECUTION_LIMIT_S,
    STREAMING_START_LIMIT_S,
    UPLOAD_LIMIT_S,
    ComputeHordeJobSpec,
)
from compute_horde_sdk._internal.specs.local import with_local_files
from compute_horde_sdk._internal.specs.volumes import InputVolume, OutputVolume
from compute_horde_sdk._internal.streaming import make_streaming_keys
from compute_horde_sdk._internal.wiring import Wiring

if TYPE_CHECKING:  # only types
    from pydantic import JsonValue

    from compute_horde.protocol.signing import Signer

MAX_PAGE_SIZE = 256
MAX_QUEUE_CHARS = 255


class ComputeHordeClient:
    """One user of a horde.

    Logs in by itself when it first has to. Use it as ``async with``, or call :meth:`aclose` when done with it.

    :param hotkey: signs; anything with ``ss58_address`` and ``sign(bytes)``.
    :param compute_horde_validator_hotkey: SS58 address of the validator that is to run the jobs.
    :param job_queue: a name under which jobs are created and found again; at most 255 characters.
    :param facilitator_url: with or without ``/api/v1``, with or without a slash at the end.
    :param cross_validation: which of the jobs are repeated on the trusted miner, and how they are compared.
    :raises ComputeHordeValidationError: one of them is not usable.
    """

    _wiring: ClassVar[Wiring] = Wiring()

    def __init__(
        self,
        hotkey: "Signer",
        compute_horde_validator_hotkey: str,
        job_queue: str | None = None,
        facilitator_url: str = DEFAULT_FACILITATOR_URL,
        *,
        cross_validation: CrossValidation | None = None,
    ) -> None:
        check_plan(cross_validation)
        _check_signer(hotkey)
        _check_hotkey_text(compute_horde_validator_hotkey)
        _check_queue(job_queue)
        self.hotkey = hotkey
        self.compute_horde_validator_hotkey = compute_horde_validator_hotkey
        self.job_queue = job_queue
        self.facilitator_url = facilitator_root(facilitator_url) + "/"
        self.cross_validation = cross_validation
        self._opened: Horde | None = None

    @overload
    async def create_job(
        self, job_spec: ComputeHordeJobSpec, on_trusted_miner: bool = False
    ) -> ComputeHordeJob: ...

    @overload
    async def create_job(
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
    async def create_job(self, *args: object, **kwargs: object) -> ComputeHordeJob:
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
        spec, on_trusted_miner = spec_of_call(args, kwargs)
        asked = Asked(
            spec.run_cross_validation,
            on_trusted_miner,
            spec.streaming,
            spec.cross_validation,
            self.cross_validation,
        )
        plan = plan_of(asked, self._wiring.sample)
        spec = await with_local_files(replace(spec, run_cross_validation=plan is not None))
        keys = await asyncio.to_thread(make_streaming_keys) if spec.streaming is True else None
        order = Order(
            spec,
            self.compute_horde_validator_hotkey,
            self.job_queue or "",
            on_trusted_miner,
            streaming_certificate=keys.pem if keys else None,
        )
        job = ComputeHordeJob(self, await self._horde.create(order), keys)
        if plan is not None:
            await job._cross_validation.begin(plan, spec.trusted_output_volumes)
        return job

    async def run_until_complete(
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

        :param job_attempt_callback: called with each new job; may be a coroutine function.
        :param timeout: seconds for everything together; None takes as long as it takes.
        :param max_attempts: no further job is created after so many attempts, counting those that the horde made
            at each job; so it is the most jobs, too. 0 or less is no limit. ``job_spec.attempts`` is how many the
            horde makes at one job.
        :raises ComputeHordeJobTimeoutError: time is up; the job that ran then goes on.
        :raises ComputeHordeError: a job could not be created, or not be followed; as in :meth:`create_job`.
        """
        spec = check_spec(job_spec)
        check_timeout(timeout)
        check_attempts(max_attempts)
        spec = await with_local_files(spec)
        return await run_attempts(self, spec, on_trusted_miner, job_attempt_callback, timeout, max_attempts)

    def map_jobs(
        self,
        specs: Iterable[ComputeHordeJobSpec] | AsyncIterable[ComputeHordeJobSpec],
        *,
        concurrency: int = 10,
        on_trusted_miner: bool = False,
        timeout: float | None = None,
        max_attempts: int = 1,
    ) -> AsyncIterator[MappedJob]:
        """Run many jobs, and yield what became of each as soon as it has ended: in the order of their ends.

        A spec whose job fails, or cannot be created, does not disturb the others: its ``error`` says why. Leaving
        the loop stops the waiting; jobs under way go on, and are not cancelled.

        :param specs: taken one by one, when there is room; may be endless, and may be asynchronous.
        :param concurrency: jobs under way at a time.
        :param timeout: seconds for each spec.
        :param max_attempts: for each spec, as in :meth:`run_until_complete`.
        :raises ComputeHordeValidationError: an argument is wrong; ``field`` names it.
        """
        check_mapping(specs, concurrency)
        check_timeout(timeout)
        check_attempts(max_attempts)

        async def run(index: int, spec: ComputeHordeJobSpec) -> MappedJob:
            jobs: list[ComputeHordeJob] = []
            try:
                job = await self.run_until_complete(spec, on_trusted_miner, jobs.append, timeout, max_attempts)
            except ComputeHordeError as error:
                return MappedJob(index, spec, jobs[-1] if jobs else None, error)
            return MappedJob(index, spec, job, job.error)

        return run_all(specs, run, concurrency)

    async def get_job(self, job_uuid: str) -> ComputeHordeJob:
        """One of this hotkey's jobs.

        :raises ComputeHordeNotFoundError: it has no such job.
        :raises ComputeHordeError: refused, or out of reach.
        """
        try:
            wanted = str(uuids.UUID(str(job_uuid)))
        except ValueError:
            raise ComputeHordeNotFoundError(f"{str(job_uuid)[:100]!r} is not the UUID of a job") from None
        return ComputeHordeJob(self, await self._horde.fetch(wanted))

    async def get_jobs(self, page: int = 1, page_size: int = 10) -> list[ComputeHordeJob]:
        """One page of this hotkey's jobs, newest first; those of ``job_queue``, where the client has one.

        :param page: from 1.
        :param page_size: 1 to 256.
        :raises ComputeHordeNotFoundError: there is no such page.
        :raises ComputeHordeError: refused, or out of reach.
        """
        size = _whole(page_size, "page_size", MAX_PAGE_SIZE)
        query = JobQuery(_whole(page, "page", None), size, queue=self.job_queue)
        return [ComputeHordeJob(self, found) for found in (await self._horde.list_jobs(query)).jobs]

    async def iter_jobs(self, *, pending: bool | None = None) -> AsyncIterator[ComputeHordeJob]:
        """This hotkey's jobs, newest first; those of ``job_queue``, where the client has one.

        None is missed and none comes twice while jobs are created and end.

        :param pending: True yields only those that have not ended, False only those that have.
        :raises ComputeHordeError: refused, or out of reach.
        """
        if pending is not None and not isinstance(pending, bool):
            raise ComputeHordeValidationError("pending must be True, False or None", field="pending")
        async for found in self._horde.iterate(self.job_queue, pending):
            yield ComputeHordeJob(self, found)

    async def authenticate(self) -> None:
        """Log in now; otherwise it happens at the first call.

        :raises ComputeHordeAuthenticationError: refused.
        """
        await self._horde.authenticate()

    async def report_cheated_job(
        self, job_uuid: str, trusted_job_uuid: str, *, details: "JsonValue" = None
    ) -> str:
        """Tell the validator that a job's result is contradicted by the same job on its trusted miner.

        :param details: anything that JSON can hold; goes to the validator.
        :raises ComputeHordeNotFoundError: one of them is no job of this hotkey, or of the wrong kind.
        :raises ComputeHordeError: refused (reported before, for one), or out of reach.
        """
        return await self._horde.report_cheat(
            _uuid_argument(job_uuid, "job_uuid"), _uuid_argument(trusted_job_uuid, "trusted_job_uuid"), details
        )

    async def aclose(self) -> None:
        """Close the connections. Whatever still waits ends with ComputeHordeConnectionError."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        queue = f", job_queue={self.job_queue!r}" if self.job_queue else ""
        return (
            f"ComputeHordeClient(hotkey={self.hotkey.ss58_address!r}, "
            f"validator={self.compute_horde_validator_hotkey!r}{queue}, facilitator_url={self.facilitator_url!r})"
        )

    @property
    def _horde(self) -> Horde:
        if self._opened is None:
            root = self.facilitator_url.removesuffix("/")
            self._opened = open_horde(root, self.hotkey, self._wiring)
        return self._opened


def _check_signer(hotkey: object) -> None:
    if not isinstance(getattr(hotkey, "ss58_address", None), str) or not callable(getattr(hotkey, "sign", None)):
        raise ComputeHordeValidationError("hotkey must have ss58_address and sign(bytes)", field="hotkey")


def _check_hotkey_text(value: object) -> None:
    if not isinstance(value, str) or not value:
        field = "compute_horde_validator_hotkey"
        raise ComputeHordeValidationError(f"{field} must be an SS58 address", field=field)


def _check_queue(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_QUEUE_CHARS:
        why = f"must be a text of 1 to {MAX_QUEUE_CHARS} characters, or None"
    elif value != value.strip() or not value.isprintable():
        why = "must not begin or end with a blank, and must be printable"  # the existing network trims it
    else:
        return
    raise ComputeHordeValidationError(f"job_queue {why}", field="job_queue")


def _whole(value: object, field: str, most: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most and value > most):
        allowed = f"1 to {most}" if most else "1 or more"
        raise ComputeHordeValidationError(f"{field} must be a whole number, {allowed}", field=field)
    return value


def _uuid_argument(value: object, field: str) -> str:
    try:
        return str(uuids.UUID(str(value)))
    except ValueError:
        raise ComputeHordeValidationError(f"{field} must be a UUID", field=field) from None

"""The client: jobs in, jobs out."""

import uuid as uuids
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

from compute_horde.protocol.enums import ExecutorClass
from compute_horde_sdk._internal.address import DEFAULT_FACILITATOR_URL, facilitator_root
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeNotFoundError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.job import ComputeHordeJob
from compute_horde_sdk._internal.opening import open_horde
from compute_horde_sdk._internal.port import Horde, JobQuery, Order
from compute_horde_sdk._internal.specs.arguments import spec_of_call
from compute_horde_sdk._internal.specs.job import (
    DOWNLOAD_LIMIT_S,
    EXECUTION_LIMIT_S,
    STREAMING_START_LIMIT_S,
    UPLOAD_LIMIT_S,
    ComputeHordeJobSpec,
)
from compute_horde_sdk._internal.specs.volumes import InputVolume, OutputVolume
from compute_horde_sdk._internal.wiring import Wiring

if TYPE_CHECKING:  # only types
    from pydantic import JsonValue

    from compute_horde.protocol.signing import Signer

ITER_PAGE_SIZE = 10
MAX_PAGE_SIZE = 256


class ComputeHordeClient:
    """One user of a horde.

    Logs in by itself when it first has to. Use it as ``async with``, or call :meth:`aclose` when done with it.

    :param hotkey: signs; anything with ``ss58_address`` and ``sign(bytes)``.
    :param compute_horde_validator_hotkey: SS58 address of the validator that is to run the jobs.
    :param job_queue: a name under which jobs are created and found again; at most 255 characters.
    :param facilitator_url: with or without ``/api/v1``, with or without a slash at the end.
    :raises ComputeHordeValidationError: one of them is not usable.
    """

    _wiring: ClassVar[Wiring] = Wiring()

    def __init__(
        self,
        hotkey: "Signer",
        compute_horde_validator_hotkey: str,
        job_queue: str | None = None,
        facilitator_url: str = DEFAULT_FACILITATOR_URL,
    ) -> None:
        _check_signer(hotkey)
        _check_hotkey_text(compute_horde_validator_hotkey)
        self.hotkey = hotkey
        self.compute_horde_validator_hotkey = compute_horde_validator_hotkey
        self.job_queue = job_queue
        self.facilitator_url = facilitator_root(facilitator_url) + "/"
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
        input_volumes: Mapping[str, InputVolume] | None = None,
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
    ) -> ComputeHordeJob: ...

    async def create_job(self, *args: Any, **kwargs: Any) -> ComputeHordeJob:
        """Sign a job and send it. Returns once the facilitator has it; :meth:`ComputeHordeJob.wait` follows it.

        Takes a :class:`ComputeHordeJobSpec`, or its fields one by one.

        :param on_trusted_miner: run it on the validator's own miner.
        :raises ComputeHordeValidationError: an argument is wrong; ``field`` names it.
        :raises ComputeHordeValidatorNotConnectedError: the validator is not there.
        :raises ComputeHordeError: refused, or out of reach.
        """
        spec, on_trusted_miner = spec_of_call(args, kwargs)
        order = Order(spec, self.compute_horde_validator_hotkey, self.job_queue or "", on_trusted_miner)
        return ComputeHordeJob(self, await self._horde.create(order))

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
        """One page of this hotkey's jobs, newest first.

        :param page: from 1.
        :param page_size: 1 to 256.
        :raises ComputeHordeNotFoundError: there is no such page.
        :raises ComputeHordeError: refused, or out of reach.
        """
        query = JobQuery(_whole(page, "page", None), _whole(page_size, "page_size", MAX_PAGE_SIZE))
        return [ComputeHordeJob(self, found) for found in (await self._horde.list_jobs(query)).jobs]

    async def iter_jobs(self) -> AsyncIterator[ComputeHordeJob]:
        """All of this hotkey's jobs, newest first, each once. Jobs created meanwhile may be left out.

        :raises ComputeHordeError: refused, or out of reach.
        """
        seen: set[str] = set()
        number = 1
        while True:
            try:
                page = await self._horde.list_jobs(JobQuery(number, ITER_PAGE_SIZE))
            except ComputeHordeNotFoundError:
                if number == 1:
                    raise
                return  # the last page went away meanwhile
            fresh = [found for found in page.jobs if found.uuid not in seen]
            for found in fresh:
                if found.uuid not in seen:
                    seen.add(found.uuid)
                    yield ComputeHordeJob(self, found)
            past_the_end = number * ITER_PAGE_SIZE >= page.count and not fresh
            if not page.more or not page.jobs or past_the_end:
                return
            number += 1

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

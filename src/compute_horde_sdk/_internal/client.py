"""The client: jobs in, jobs out."""

import uuid as uuids
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Self

from pydantic import JsonValue

from compute_horde.protocol.base import Message
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.sdk_facilitator import MAX_PAGE_SIZE, CheatReport, Job, JobPage
from compute_horde.protocol.signing import SignatureScope, SignedFields, Signer, canonical_text, sign_payload
from compute_horde_sdk._internal.address import DEFAULT_FACILITATOR_URL, facilitator_root
from compute_horde_sdk._internal.events import EventHub
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.http import Facilitator, signing_errors
from compute_horde_sdk._internal.job import ComputeHordeJob
from compute_horde_sdk._internal.specs.request import encode_body, job_body
from compute_horde_sdk._internal.specs.volumes import InputVolume, OutputVolume
from compute_horde_sdk._internal.wiring import Wiring

ITER_PAGE_SIZE = 10


class ComputeHordeClient:
    """One user of a horde.

    Logs in by itself when it first has to. Use it as ``async with``, or call :meth:`aclose` when done with it.

    :param hotkey: signs; anything with ``ss58_address`` and ``sign(bytes)``.
    :param compute_horde_validator_hotkey: SS58 address of the validator that is to run the jobs.
    :param job_queue: reserved; anything but None raises ComputeHordeUnsupportedError.
    :param facilitator_url: with or without ``/api/v1``, with or without a slash at the end.
    :raises ComputeHordeValidationError: one of them is not usable.
    """

    _wiring: ClassVar[Wiring] = Wiring()

    def __init__(
        self,
        hotkey: Signer,
        compute_horde_validator_hotkey: str,
        job_queue: str | None = None,
        facilitator_url: str = DEFAULT_FACILITATOR_URL,
    ) -> None:
        if job_queue is not None:
            raise _unsupported("job_queue")
        _check_signer(hotkey)
        _check_hotkey_text(compute_horde_validator_hotkey)
        self.hotkey = hotkey
        self.compute_horde_validator_hotkey = compute_horde_validator_hotkey
        self.facilitator_url = facilitator_root(facilitator_url) + "/"
        self._facilitator = Facilitator(facilitator_root(facilitator_url), hotkey, self._wiring)
        self._hub = EventHub(self._facilitator, self._wiring)

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
        download_time_limit_sec: int = 60,
        execution_time_limit_sec: int = 300,
        upload_time_limit_sec: int = 60,
        streaming_start_time_limit_sec: int = 5,
        on_trusted_miner: bool = False,
    ) -> ComputeHordeJob:
        """Sign a job and send it. Returns once the facilitator has it; :meth:`ComputeHordeJob.wait` follows it.

        :param executor_class: what kind of machine, such as ``ExecutorClass.always_on__gpu_24gb``.
        :param job_namespace: whom the job is for, such as ``SN12.0``; at most 100 characters.
        :param docker_image: the image's reference.
        :param args: the container's arguments, one text each.
        :param env: the container's environment.
        :param artifacts_dir: absolute path in the container; the files directly in it come back in the result.
        :param input_volumes: by mount path below ``/volume/``.
        :param output_volumes: by path below ``/output/``.
        :param run_cross_validation: reserved; True raises ComputeHordeUnsupportedError.
        :param trusted_output_volumes: reserved; anything but None raises ComputeHordeUnsupportedError.
        :param download_time_limit_sec: seconds for fetching the inputs.
        :param execution_time_limit_sec: seconds for the container.
        :param upload_time_limit_sec: seconds for sending the outputs.
        :param streaming_start_time_limit_sec: seconds for a streaming server to come up; streaming jobs only.
        :param on_trusted_miner: run it on the validator's own miner.
        :raises ComputeHordeValidationError: an argument is wrong; ``field`` names it.
        :raises ComputeHordeUnsupportedError: a reserved argument was used; nothing was sent.
        :raises ComputeHordeValidatorNotConnectedError: the validator is not there.
        :raises ComputeHordeError: refused, or out of reach.
        """
        if run_cross_validation:
            raise _unsupported("run_cross_validation")
        if trusted_output_volumes is not None:
            raise _unsupported("trusted_output_volumes")
        body = job_body(
            validator_hotkey=self.compute_horde_validator_hotkey,
            executor_class=executor_class,
            job_namespace=job_namespace,
            docker_image=docker_image,
            args=args,
            env=env,
            artifacts_dir=artifacts_dir,
            input_volumes=input_volumes,
            output_volumes=output_volumes,
            limits={
                "download_time_limit": download_time_limit_sec,
                "execution_time_limit": execution_time_limit_sec,
                "streaming_start_time_limit": streaming_start_time_limit_sec,
                "upload_time_limit": upload_time_limit_sec,
            },
            on_trusted_miner=on_trusted_miner,
        )
        content = encode_body(body)
        headers = self._sign(SignedFields.from_body(body).payload(), SignatureScope.SIGNED_FIELDS)
        wire = await self._facilitator.call(Job, "POST", "/api/v1/job-docker/", content=content, headers=headers)
        return ComputeHordeJob._from_wire(self, wire)

    async def get_job(self, job_uuid: str) -> ComputeHordeJob:
        """One of this hotkey's jobs.

        :raises ComputeHordeNotFoundError: it has no such job.
        :raises ComputeHordeError: refused, or out of reach.
        """
        return ComputeHordeJob._from_wire(self, await self._fetch(job_uuid))

    async def get_jobs(self, page: int = 1, page_size: int = 10) -> list[ComputeHordeJob]:
        """One page of this hotkey's jobs, newest first.

        :param page: from 1.
        :param page_size: 1 to 256.
        :raises ComputeHordeNotFoundError: there is no such page.
        :raises ComputeHordeError: refused, or out of reach.
        """
        found = await self._page(_whole(page, "page", None), _whole(page_size, "page_size", MAX_PAGE_SIZE))
        return [ComputeHordeJob._from_wire(self, wire) for wire in found.results]

    async def iter_jobs(self) -> AsyncIterator[ComputeHordeJob]:
        """All of this hotkey's jobs, newest first, each once. Jobs created meanwhile may be left out.

        :raises ComputeHordeError: refused, or out of reach.
        """
        seen: set[str] = set()
        number = 1
        while True:
            try:
                page = await self._page(number, ITER_PAGE_SIZE)
            except ComputeHordeNotFoundError:
                if number == 1:
                    raise
                return  # the last page went away meanwhile
            fresh = [wire for wire in page.results if wire.uuid not in seen]
            for wire in fresh:
                if wire.uuid not in seen:
                    seen.add(wire.uuid)
                    yield ComputeHordeJob._from_wire(self, wire)
            past_the_end = number * ITER_PAGE_SIZE >= page.count and not fresh
            if page.next is None or not page.results or past_the_end:
                return
            number += 1

    async def authenticate(self) -> None:
        """Log in now; otherwise it happens at the first call.

        :raises ComputeHordeAuthenticationError: refused.
        """
        await self._facilitator.authenticate()

    async def report_cheated_job(self, job_uuid: str, trusted_job_uuid: str, *, details: JsonValue = None) -> None:
        """Tell the validator that a job's result is contradicted by the same job on its trusted miner.

        :param details: anything that JSON can hold; goes to the validator.
        :raises ComputeHordeNotFoundError: one of them is no job of this hotkey, or of the wrong kind.
        :raises ComputeHordeError: refused (reported before, for one), or out of reach.
        """
        report = CheatReport(
            job_uuid=_uuid_argument(job_uuid, "job_uuid"),
            trusted_job_uuid=_uuid_argument(trusted_job_uuid, "trusted_job_uuid"),
        )
        body = {**report.model_dump(mode="json"), "details": details}
        try:
            text = canonical_text(body)
        except (TypeError, ValueError, RecursionError):
            raise ComputeHordeValidationError(
                "details must be something that JSON can hold", field="details"
            ) from None
        headers = self._sign(text, SignatureScope.FULL_REQUEST)
        await self._facilitator.call(
            Message, "POST", "/api/v1/cheated-job/", content=text.encode(), headers=headers
        )

    async def aclose(self) -> None:
        """Close the connections. Whatever still waits ends with ComputeHordeConnectionError."""
        await self._hub.aclose()
        await self._facilitator.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _fetch(self, job_uuid: str) -> Job:
        try:
            wanted = str(uuids.UUID(str(job_uuid)))
        except ValueError:
            raise ComputeHordeNotFoundError(f"{str(job_uuid)[:100]!r} is not the UUID of a job") from None
        wire = await self._facilitator.call(Job, "GET", f"/api/v1/jobs/{wanted}/")
        if wire.uuid.lower() != wanted:
            raise ComputeHordeResponseError(
                f"the facilitator answered with job {wire.uuid[:100]!r}, not {wanted}", code="malformed_response"
            )
        return wire

    async def _page(self, page: int, page_size: int) -> JobPage:
        return await self._facilitator.call(
            JobPage, "GET", "/api/v1/jobs/", params={"page": page, "page_size": page_size}
        )

    def _sign(self, payload: str, scope: SignatureScope) -> dict[str, str]:
        with signing_errors():
            return sign_payload(self.hotkey, payload, scope, self._wiring.now_ns()).to_headers()


def _check_signer(hotkey: object) -> None:
    if not isinstance(getattr(hotkey, "ss58_address", None), str) or not callable(getattr(hotkey, "sign", None)):
        raise ComputeHordeValidationError("hotkey must have ss58_address and sign(bytes)", field="hotkey")


def _check_hotkey_text(value: object) -> None:
    if not isinstance(value, str) or not value:
        field = "compute_horde_validator_hotkey"
        raise ComputeHordeValidationError(f"{field} must be an SS58 address", field=field)


def _unsupported(name: str) -> ComputeHordeUnsupportedError:
    return ComputeHordeUnsupportedError(
        f"{name} is not carried out yet; nothing was sent", hint=f"Leave {name} out."
    )


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

"""From the facilitator's job object to status, history and result. Pure functions."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pydantic import ValidationError

from compute_horde.protocol.compat.cancelled import without_disguise
from compute_horde.protocol.details import FailureDetails, MinerResponse, StatusMetadata
from compute_horde.protocol.enums import FailureReason, Stage
from compute_horde.protocol.scheduling import QueuePlace as WirePlace
from compute_horde.protocol.sdk_facilitator import Job, JobEvent, JobPage, JobQueueEvent, StatusEntry
from compute_horde.protocol.uploads import UploadResponse
from compute_horde_sdk._internal.models import (
    ComputeHordeJobResult,
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    HttpOutputVolumeResponse,
    QueuePlace,
)
from compute_horde_sdk._internal.port import JobList, JobSnapshot, PlaceChange, StatusChange, StreamingServer
from compute_horde_sdk._internal.wire.failures import bare_error, error_of_entry
from compute_horde_sdk._internal.wire.request import OUTPUT_PREFIX

Entries = Iterable[ComputeHordeJobStatusEntry]
ORDER_FIELDS = {
    "target_validator_hotkey",
    "executor_class",
    "docker_image",
    "job_namespace",
    "args",
    "env",
    "use_gpu",
    "artifacts_dir",
    "download_time_limit",
    "execution_time_limit",
    "streaming_start_time_limit",
    "upload_time_limit",
    "volumes",
    "uploads",
}
"""What of the job object says how it was created."""


def snapshot_of(job: Job) -> JobSnapshot:
    """All that the job object says."""
    history = tuple(map(read_entry, job.status_history))
    status = status_of(history, job.status)
    end = final_entry(history)
    return JobSnapshot(
        uuid=job.uuid,
        status=status,
        history=history,
        created_at=job.created_at,
        result=result_of(job, history),
        error=((end.error if end else None) or bare_error(status)) if status.is_failed() else None,
        executor_class=job.executor_class,
        docker_image=job.docker_image,
        job_namespace=job.job_namespace,
        queue=job.tag,
        on_trusted_miner=job.on_trusted_miner,
        streaming=StreamingServer(
            job.streaming_server_cert, job.streaming_server_address, job.streaming_server_port
        ),
        run_cross_validation=job.run_cross_validation,
        trusted_job_uuid=job.trusted_job_uuid,
        cross_validates=job.cross_validates,
        cancel_requested=job.cancel_requested,
        place=_place_in(job),
        attempt=job.attempt,
        attempts=_attempts_in(job),
        order=job.model_dump(mode="json", include=ORDER_FIELDS),
    )


def _place_in(job: Job) -> QueuePlace | None:
    """The newest that is known; what came with the status, where the job object does not tell."""
    told = job.queue or (job.status_history[-1].metadata.queue if job.status_history else None)
    return place_of(told) if told else None


def _attempts_in(job: Job) -> int | None:
    told = (entry.metadata.attempt for entry in reversed(job.status_history))
    return next((attempt.of for attempt in told if attempt), job.attempts)


def list_of(page: JobPage) -> JobList:
    """One page of jobs."""
    return JobList(tuple(map(snapshot_of, page.results)), page.count, page.next is not None)


def change_of(event: JobEvent) -> StatusChange:
    """A pushed event."""
    entry, metadata = read_entry(event.entry), event.entry.metadata
    of = metadata.attempt.of if metadata.attempt else None
    if entry.status.is_in_progress():
        place = place_of(metadata.queue) if metadata.queue else None
        return StatusChange(event.job_uuid, entry, whole=True, place=place, attempts=of)
    result = result_of_event(entry)
    return StatusChange(event.job_uuid, entry, result is not None, result, entry.error, attempts=of)


def place_change_of(event: JobQueueEvent) -> PlaceChange:
    """A pushed place."""
    return PlaceChange(event.job_uuid, place_of(event.queue))


def place_of(place: WirePlace) -> QueuePlace:
    """The public form of a place."""
    return QueuePlace(place.position, place.length, place.starts_in_s)


def read_entry(entry: StatusEntry) -> ComputeHordeJobStatusEntry:
    """The public form of one history entry."""
    status = ComputeHordeJobStatus(without_disguise(entry.status, entry.metadata).value)
    attempt = entry.metadata.attempt
    made = ComputeHordeJobStatusEntry(
        entry.created_at,
        status,
        entry.metadata,
        attempt=attempt.number if attempt else None,
        miner_hotkey=attempt.miner_hotkey if attempt else None,
    )
    return replace(made, error=error_of_entry(made))


def final_entry(history: Entries) -> ComputeHordeJobStatusEntry | None:
    """The latest entry that ends the job; whatever an old peer recorded after it does not count."""
    ended = [entry for entry in history if not entry.status.is_in_progress()]
    return ended[-1] if ended else None


def status_of(history: Entries, label: str = "") -> ComputeHordeJobStatus:
    """The status that a history amounts to; the capitalised ``label`` of the job object when it says nothing."""
    known = [entry for entry in history if entry.status is not ComputeHordeJobStatus.UNKNOWN]
    if end := final_entry(known):
        return end.status
    return known[-1].status if known else ComputeHordeJobStatus(label.strip().lower().replace(" ", "_"))


def result_of(job: Job, history: Entries) -> ComputeHordeJobResult | None:
    """The result, or None while the job is in progress."""
    history = list(history)
    if status_of(history, job.status).is_in_progress():
        return None
    end = final_entry(history)
    metadata = end.metadata if end else None
    if metadata and metadata.job_failure_details:
        return result_of_failure(metadata.job_failure_details)
    response = (metadata.miner_response if metadata else None) or MinerResponse(
        docker_process_stdout=job.stdout, docker_process_stderr=job.stderr
    )
    return _result(
        response,
        stdout=job.stdout or response.docker_process_stdout,
        stderr=job.stderr or response.docker_process_stderr,
        artifacts=job.artifacts or response.artifacts or {},
        uploads=job.upload_results or response.upload_results or {},
    )


def result_of_event(entry: ComputeHordeJobStatusEntry) -> ComputeHordeJobResult | None:
    """The result that a final event itself carries; None when the job object has to be fetched for it."""
    metadata = entry.metadata or StatusMetadata()
    if metadata.job_failure_details:
        return result_of_failure(metadata.job_failure_details)
    if metadata.horde_failure_details or metadata.job_rejection_details:
        return ComputeHordeJobResult()
    response = metadata.miner_response
    if response is None or response.artifacts is None:
        return None
    return _result(
        response,
        stdout=response.docker_process_stdout,
        stderr=response.docker_process_stderr,
        artifacts=response.artifacts,
        uploads=response.upload_results or {},
    )


def result_of_failure(details: FailureDetails) -> ComputeHordeJobResult:
    """What a failed job's container wrote before it failed."""
    return ComputeHordeJobResult(
        stdout=details.docker_process_stdout or "",
        stderr=details.docker_process_stderr or "",
        exit_code=details.docker_process_exit_status,
        timed_out=details.reason is FailureReason.TIMEOUT and details.stage is Stage.EXECUTION,
    )


def _result(
    response: MinerResponse, *, stdout: str, stderr: str, artifacts: Mapping[str, str], uploads: Mapping[str, str]
) -> ComputeHordeJobResult:
    result = ComputeHordeJobResult(
        stdout=stdout,
        stderr=stderr,
        exit_code=response.exit_status,
        timed_out=bool(response.timed_out),
        notices=list(response.notices or []),
        image_digest=response.image_digest,
        output_hashes=_below_output(response.output_hashes),
    )
    for path, text in artifacts.items():
        try:
            result.artifacts[path] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            result.notices.append(f"The artifact {path!r} was left out: it arrived as damaged base64.")
    for path, text in uploads.items():
        full = OUTPUT_PREFIX + path.removeprefix(OUTPUT_PREFIX)
        try:
            answer = UploadResponse.model_validate_json(text)
            result.upload_results[full] = HttpOutputVolumeResponse(answer.headers, answer.body)
        except ValidationError:
            result.notices.append(f"The upload target's answer for {full!r} was left out: it is unreadable.")
    return result


def _below_output(hashes: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if hashes is None else {OUTPUT_PREFIX + path: found for path, found in hashes.items()}

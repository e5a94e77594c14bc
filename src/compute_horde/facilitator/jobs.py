"""Creating jobs, and moving them on as validators report (sections 2.5 and 5)."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from compute_horde.facilitator.admission import (
    SignatureRules,
    admit_job,
    job_message,
    read_signature,
    time_budget,
)
from compute_horde.facilitator.errors import NO_JOB, ApiError, signature_invalid
from compute_horde.facilitator.store import NO_METADATA, Conflict, JobStore, NewJob, StoredJob, UnknownJob
from compute_horde.facilitator.topics import announce
from compute_horde.facilitator.validators import Link, Links
from compute_horde.lifecycle.states import IllegalTransition, from_wire
from compute_horde.protocol.compat.cancelled import without_disguise
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import JobStatus, Participant
from compute_horde.protocol.facilitator_validator import Response, V0JobStatusUpdate
from compute_horde.protocol.sdk_facilitator import JobRequest
from compute_horde.protocol.signing import SignatureScope
from compute_horde.storage.bus import Bus

log = structlog.get_logger(__name__)
NO_VALIDATOR = ["Could not select Validator"]


def is_uuid(text: str) -> bool:
    """Whether this is a UUID in its canonical text."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


class Jobs:
    """``on_deadline`` is told of every new deadline (UNIX seconds)."""

    def __init__(
        self,
        store: JobStore,
        links: Links,
        bus: Bus,
        *,
        now: Callable[[], float],
        margin_s: float,
        on_deadline: Callable[[float], None],
    ) -> None:
        self._store, self._links, self._bus = store, links, bus
        self._now, self._margin, self._on_deadline = now, margin_s, on_deadline

    async def create(
        self, body: Mapping[str, Any], headers: Mapping[str, str], rules: SignatureRules
    ) -> StoredJob:
        """Check, store, push. The same signature again gives the same job: a retry is harmless, however late.

        :raises ApiError: 400.
        """
        signature = read_signature(headers, SignatureScope.SIGNED_FIELDS)
        known = await self._store.by_signature(signature.raw.hex())
        request = admit_job(body, signature, rules.of_any_age() if known else rules)
        if known:
            return _again(known, request)
        message = job_message(str(uuid.uuid4()), request, signature, body)
        target, frame = request.target_validator_hotkey, message.to_frame()
        link = self._links.usable(target, self._now())
        if link is None or len(frame.encode()) > link.max_frame_bytes:
            raise _undeliverable(link, len(frame.encode()))
        new = NewJob(
            uuid=message.uuid,
            user=rules.user,
            validator=target,
            signature=signature.raw.hex(),
            tag=request.tag,
            on_trusted_miner=request.on_trusted_miner,
            request=request.model_dump_json(),
            frame=frame,
            budget_s=time_budget(request, self._margin),
            run_cross_validation=request.run_cross_validation,
            cross_validates=request.cross_validates,
        )
        return await self._store_and_push(new, request)

    async def _store_and_push(self, new: NewJob, request: JobRequest) -> StoredJob:
        now = self._now()
        try:
            stored = await self._store.create(new, now)
        except Conflict as conflict:
            if known := await self._store.by_signature(new.signature):  # sent twice at the same time
                return _again(known, request)
            raise ApiError(400, {"cross_validates": [str(conflict)]}) from None
        link = self._links.usable(new.validator, now)
        if link is None or not self._links.give(link, new.uuid, new.frame):
            self._links.keep(new.uuid)
        self._on_deadline(now + new.budget_s)
        announce(self._bus, new.user, new.uuid)
        log.info("job created", job_uuid=new.uuid, user=new.user, validator=new.validator)
        return stored

    async def get(self, job_uuid: str, user: str) -> StoredJob:
        """:raises ApiError: 404, other users' jobs included."""
        stored = await self._store.get(job_uuid.lower(), user)
        if stored is None:
            raise ApiError(404, NO_JOB)
        return stored

    async def report(self, update: V0JobStatusUpdate, validator: str) -> Response:
        """Store one status of a validator's job; the answer that it is sent."""
        if refusal := _refusal(update):
            return refusal
        state = from_wire(without_disguise(update.status, update.metadata))
        if state is None or update.status is JobStatus.CANCELLED:  # on this wire it travels disguised
            return Response.error("job.status_unknown", "This status is not known, and was not stored")
        metadata = update.metadata.model_dump_json(exclude_none=True) if update.metadata else NO_METADATA
        try:
            user = await self._store.add_status(
                update.uuid, state, metadata, Participant.VALIDATOR, self._now(), validator
            )
        except UnknownJob:
            return _not_found(update.uuid)
        except IllegalTransition as error:
            log.warning("status refused", job_uuid=update.uuid, status=state.value, why=str(error))
            return Response.error("job.integrity_error", f"Status not stored: {error}")
        if state.is_terminal:
            self._links.forget(update.uuid)
        announce(self._bus, user, update.uuid)
        log.info("job status", job_uuid=update.uuid, status=state.value, validator=validator)
        return Response(status="success")

    async def hand_over(self, link: Link) -> None:
        """Give a new connection every job that its validator has not confirmed, unless a newer one came since."""
        waiting = await self._store.waiting(link.hotkey)
        if self._links.usable(link.hotkey, self._now()) is not link:
            return
        for job_uuid, frame in waiting:
            if not self._links.give(link, job_uuid, frame):
                log.warning("job exceeds this connection's frame limit", job_uuid=job_uuid, validator=link.hotkey)


def _again(known: StoredJob, request: JobRequest) -> StoredJob:
    """The job that a repeated request made. Of what is not signed, only its validator is held against it."""
    if known.row["validator"] != request.target_validator_hotkey:
        raise signature_invalid("this signature was already used for a job at another validator; sign again")
    return known


def _undeliverable(link: Link | None, size: int) -> ApiError:
    if link is None:
        return ApiError(400, NO_VALIDATOR)
    why = (
        f"The job's message has {size} bytes, but its validator takes at most {link.max_frame_bytes}; "
        "move large inline volumes to a URL."
    )
    return ApiError(400, {"non_field_errors": [why]})


def _not_found(job_uuid: str) -> Response:
    return Response.error("job.not_found", f"Job with uuid {job_uuid[:64]} not found")


def _refusal(update: V0JobStatusUpdate) -> Response | None:
    """Why an update cannot even be looked up (G14, G15)."""
    if not is_uuid(update.uuid):
        return _not_found(update.uuid)
    metadata = update.metadata or StatusMetadata()
    if update.status is JobStatus.COMPLETED and metadata.miner_response is None:
        return Response.error("job.metadata_missing", "completed needs metadata with a miner_response")
    if update.status is JobStatus.STREAMING_READY and metadata.streaming_details is None:
        return Response.error("job.metadata_missing", "streaming_ready needs metadata with streaming_details")
    return None

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
from compute_horde.facilitator.store import NO_METADATA, JobStore, NewJob, StoredJob, UnknownJob
from compute_horde.facilitator.validators import Link, Links
from compute_horde.lifecycle.states import IllegalTransition, from_wire
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import JobStatus, Participant
from compute_horde.protocol.facilitator_validator import Response, V0JobStatusUpdate
from compute_horde.protocol.signing import Signature, SignatureScope
from compute_horde.storage.bus import Bus

log = structlog.get_logger(__name__)
NO_VALIDATOR = ["Could not select Validator"]


def user_topic(hotkey: str) -> str:
    """The bus topic that wakes whoever follows this user's jobs."""
    return f"jobs:{hotkey}"


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
        """Check, store, push. The same signature again gives the same job: a retry is harmless.

        :raises ApiError: 400.
        """
        signature = read_signature(headers, SignatureScope.SIGNED_FIELDS)
        request = admit_job(body, signature, rules)
        message = job_message(str(uuid.uuid4()), request, signature, body)
        target, frame = request.target_validator_hotkey, message.to_frame()
        link = self._links.usable(target, self._now())
        if link is None or len(frame.encode()) > link.max_frame_bytes:
            if known := await self._replayed(signature, target):
                return known
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
        )
        return await self._store_and_push(new, signature)

    async def _store_and_push(self, new: NewJob, signature: Signature) -> StoredJob:
        now = self._now()
        stored = await self._store.create(new, now)
        if stored is None:
            if known := await self._replayed(signature, new.validator):
                return known
            raise RuntimeError("a job was refused as a replay, but there is none with its signature")
        if link := self._links.usable(new.validator, now):
            link.push_job(new.uuid, new.frame)
        self._on_deadline(now + new.budget_s)
        self._bus.notify(user_topic(new.user))
        log.info("job created", job_uuid=new.uuid, user=new.user, validator=new.validator)
        return stored

    async def _replayed(self, signature: Signature, target: str) -> StoredJob | None:
        known = await self._store.by_signature(signature.raw.hex())
        if known is not None and known.row["validator"] != target:
            raise signature_invalid("this signature was already used for a job at another validator; sign again")
        return known

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
        state = from_wire(update.status)
        if state is None:
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
        self._bus.notify(user_topic(user))
        log.info("job status", job_uuid=update.uuid, status=state.value, validator=validator)
        return Response(status="success")

    async def hand_over(self, link: Link) -> None:
        """Give a new connection every job that its validator has not confirmed, unless a newer one came since."""
        waiting = await self._store.waiting(link.hotkey)
        if self._links.usable(link.hotkey, self._now()) is not link:
            return
        for job_uuid, frame in waiting:
            if len(frame.encode()) <= link.max_frame_bytes:
                link.push_job(job_uuid, frame)
            else:
                log.warning("job exceeds this connection's frame limit", job_uuid=job_uuid, validator=link.hotkey)


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

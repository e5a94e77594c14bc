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
from compute_horde.facilitator.counting import Counting
from compute_horde.facilitator.delivering import Delivering
from compute_horde.facilitator.errors import NO_JOB, ApiError, signature_invalid
from compute_horde.facilitator.registry import LiveLink
from compute_horde.facilitator.rows import NO_METADATA, ClaimedElsewhere, Conflict, NewJob, StoredJob, UnknownJob
from compute_horde.facilitator.statuses import Change, Moved, Repeated, Reporter
from compute_horde.facilitator.store import JobStore
from compute_horde.facilitator.switchboard import Switchboard
from compute_horde.facilitator.topics import announce
from compute_horde.facilitator.validators import Link, Links, frame_for
from compute_horde.lifecycle.states import IllegalTransition, JobState, from_wire
from compute_horde.protocol.compat.cancelled import without_disguise
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import JobStatus
from compute_horde.protocol.facilitator_validator import (
    CLAIMED_ELSEWHERE,
    Response,
    V0JobStatusUpdate,
)
from compute_horde.protocol.sdk_facilitator import JobRequest
from compute_horde.protocol.signing import SignatureScope
from compute_horde.storage.bus import Bus
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.telemetry.vocabulary import Refusal

log = structlog.get_logger(__name__)
NO_VALIDATOR = ["Could not select Validator"]


def is_uuid(text: str) -> bool:
    """Whether this is a UUID in its canonical text."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


class Jobs:
    """``now``: the wall clock; ``clock``: the steady one; ``on_deadline`` is told of new deadlines by it."""

    def __init__(
        self,
        store: JobStore,
        links: Links,
        board: Switchboard,
        delivering: Delivering,
        bus: Bus,
        counting: Counting,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        margin_s: float,
        on_deadline: Callable[[float], None],
    ) -> None:
        self._store, self._links, self._board, self._delivering, self._bus = store, links, board, delivering, bus
        self._counting = counting
        self._now, self._clock, self._margin, self._on_deadline = now, clock, margin_s, on_deadline

    async def create(
        self, body: Mapping[str, Any], headers: Mapping[str, str], rules: SignatureRules
    ) -> StoredJob:
        """Check, store, push. The same signature again gives the same job: a retry is harmless, however late.

        :raises ApiError: 400.
        :raises DatabaseUnavailable: nothing is promised, though the job may be stored.
        """
        stored = await self._create(body, headers, rules)
        await self._store.settled()  # what is answered outlives a power failure
        return stored

    async def _create(
        self, body: Mapping[str, Any], headers: Mapping[str, str], rules: SignatureRules
    ) -> StoredJob:
        signature = read_signature(headers, SignatureScope.SIGNED_FIELDS)
        known = await self._store.by_signature(signature.raw.hex())
        request = admit_job(body, signature, rules.of_any_age() if known else rules)
        if known:
            self._counting.metrics.refused(Refusal.REPEATED)
            self._delivering.wake(known.row["validator"])  # it may be that its first answer was lost, and more
            return _again(known, request)
        message = job_message(str(uuid.uuid4()), request, signature, body)
        frame = message.to_frame()
        link = await self._reachable(frame, request.target_validator_hotkey)
        new = NewJob(
            uuid=message.uuid,
            user=rules.user,
            validator=request.target_validator_hotkey,
            signature=signature.raw.hex(),
            tag=request.tag,
            on_trusted_miner=request.on_trusted_miner,
            request=request.model_dump_json(),
            frame=frame,
            budget_s=time_budget(request, self._margin),
            run_cross_validation=request.run_cross_validation,
            cross_validates=request.cross_validates,
            queue_limit_s=request.queue_time_limit,
            retry_backoff_s=request.retry_backoff,
            attempts=request.attempts,
            given_to=link.id if isinstance(link, Link) else None,
        )
        return await self._store_and_push(new, request)

    async def _reachable(self, frame: str, validator: str) -> Link | LiveLink:
        """The connection that could take the job, here or at another replica. :raises ApiError: 400: none can."""
        found = self._board.here(validator) or next(iter(await self._board.live(validator)), None)
        size = len(frame_for(found.extensions, frame).encode()) if found else 0
        if found is None or size > found.max_frame_bytes:
            raise _undeliverable(found, size)
        return found

    async def _store_and_push(self, new: NewJob, request: JobRequest) -> StoredJob:
        clock = self._clock()
        try:
            stored = await self._store.create(new, self._now(), clock)
        except Conflict as conflict:
            if known := await self._store.by_signature(new.signature):  # sent twice at the same time
                return _again(known, request)
            raise ApiError(400, {"cross_validates": [str(conflict)]}) from None
        except DatabaseUnavailable:  # perhaps it is stored all the same: then it is given to its validator
            self._delivering.wake(new.validator)
            raise
        self._counting.created(new.uuid, request.executor_class)
        await self._delivering.push(new)
        self._on_deadline(clock + new.budget_s)
        announce(self._bus, new.user, new.uuid)
        log.info("job created", job_uuid=new.uuid, user=new.user, validator=new.validator)
        return stored

    async def get(self, job_uuid: str, user: str) -> StoredJob:
        """:raises ApiError: 404, other users' jobs included."""
        stored = await self._store.get(job_uuid.lower(), user)
        if stored is None:
            raise ApiError(404, NO_JOB)
        return stored

    async def report(self, update: V0JobStatusUpdate, link: Link) -> Response:
        """Store one status of a validator's job; the answer that it is sent.

        :raises DatabaseUnavailable: it could not be stored.
        """
        if refusal := _refusal(update):
            return self._refuse(refusal, Refusal.MALFORMED)
        state = from_wire(without_disguise(update.status, update.metadata))
        if state is None or update.status is JobStatus.CANCELLED:  # on this wire it travels disguised
            unknown = Response.error("job.status_unknown", "This status is not known, and was not stored")
            return self._refuse(unknown, Refusal.MALFORMED)
        try:
            moved = await self._store.add_status(_change(update, state, link), self._now(), self._clock())
        except UnknownJob:
            return self._refuse(_not_found(update.uuid), Refusal.UNKNOWN_JOB)
        except ClaimedElsewhere as error:
            log.info("claim refused", job_uuid=update.uuid, status=state.value, why=str(error))
            elsewhere = "Another instance of this validator has the job; drop it"
            return self._refuse(Response.error(CLAIMED_ELSEWHERE, elsewhere), Refusal.NOT_OURS)
        except IllegalTransition as error:
            log.warning("status refused", job_uuid=update.uuid, status=state.value, why=str(error))
            why = Refusal.REPEATED if isinstance(error, Repeated) else Refusal.ILLEGAL_TRANSITION
            await self._keep(state)
            return self._refuse(Response.error("job.integrity_error", f"Status not stored: {error}"), why)
        self._tell(update.uuid, moved)
        await self._counting.moved(update.uuid, moved, update.metadata)
        log.info(
            "job status", job_uuid=update.uuid, status=state.value, attempt=moved.attempt, validator=link.hotkey
        )
        await self._keep(state)
        return Response(status="success")

    async def _keep(self, state: JobState) -> None:
        """The validator forgets a result once it is answered, be it that the facilitator has it already."""
        if state.is_terminal:
            await self._store.settled()

    def _refuse(self, response: Response, why: Refusal) -> Response:
        self._counting.metrics.refused(why)
        return response

    def _tell(self, job_uuid: str, moved: Moved) -> None:
        if moved.deadline is None:
            self._links.forget(job_uuid)
        else:
            self._on_deadline(moved.deadline)
        announce(self._bus, moved.user, job_uuid)


def _change(update: V0JobStatusUpdate, state: JobState, link: Link) -> Change:
    told = update.metadata or StatusMetadata()
    return Change(
        uuid=update.uuid,
        to=state,
        metadata=told.model_dump_json(exclude_none=True) if update.metadata else NO_METADATA,
        attempt=told.attempt.number if told.attempt else None,
        queue=told.queue if state is JobState.QUEUED else None,
        reporter=Reporter(link.hotkey, link.id, link.instance),
    )


def _again(known: StoredJob, request: JobRequest) -> StoredJob:
    """The job that a repeated request made. Of what is not signed, only its validator is held against it."""
    if known.row["validator"] != request.target_validator_hotkey:
        raise signature_invalid("this signature was already used for a job at another validator; sign again")
    return known


def _undeliverable(link: Link | LiveLink | None, size: int) -> ApiError:
    if link is None:
        return ApiError(400, NO_VALIDATOR, refusal=Refusal.OTHER)
    why = (
        f"The job's message has {size} bytes, but its validator takes at most {link.max_frame_bytes}; "
        "move large inline volumes to a URL."
    )
    return ApiError(400, {"non_field_errors": [why]}, refusal=Refusal.TOO_LARGE)


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

"""The validator's rows: jobs, the outbox of status updates, receipts, incidents. One transaction per method."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.chain.port import MinerEndpoint
from compute_horde.lifecycle.states import TERMINAL, JobState
from compute_horde.protocol.facilitator_validator import V2JobRequest
from compute_horde.storage.database import Database
from compute_horde.validator.tables import incidents, jobs, outbox, receipts

_ENDED = [state.value for state in TERMINAL]


class StaleJob(RuntimeError):  # noqa: N818 - what the row is
    """The row is no longer in the state that the writer had seen: its work is dropped."""


@dataclass(frozen=True)
class Job:
    """One row of ``jobs``. ``miner`` is set from just before the initial request is sent to it."""

    request: V2JobRequest
    state: JobState
    received_at: float
    miner: MinerEndpoint | None = None
    started_at: float | None = None
    deadline_at: float | None = None
    cheated: bool = False
    cancel_requested: bool = False

    @property
    def uuid(self) -> str:
        return self.request.uuid


@dataclass(frozen=True)
class IssuedReceipt:
    """A receipt of ours, as it was sent (section 9.3)."""

    job_uuid: str
    kind: str
    payload: str
    signature: str


@dataclass(frozen=True)
class Incident:
    """A miner's fault."""

    miner_hotkey: str
    job_uuid: str
    code: str
    at: float


class Admission(Enum):
    """What became of a job request."""

    NEW = "new"
    KNOWN = "known"
    REPLAYED = "replayed"


class Store:
    """All of the validator's queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_job(self, job: Job, replay_key: str | None, frame: str) -> tuple[Admission, int]:
        """Add a job with its first status. Answers the outbox id, 0 unless the job is new."""
        same = jobs.c.uuid == job.uuid
        clash = same if replay_key is None else or_(same, jobs.c.replay_key == replay_key)
        async with self._database.begin() as connection:
            known = (await connection.execute(select(jobs.c.uuid).where(clash))).scalars().all()
            if known:
                return (Admission.KNOWN if job.uuid in known else Admission.REPLAYED), 0
            await connection.execute(
                insert(jobs).values(
                    uuid=job.uuid,
                    request=job.request.to_frame(),
                    replay_key=replay_key,
                    state=job.state.value,
                    received_at=job.received_at,
                    cheated=False,
                    cancel_requested=False,
                )
            )
            return Admission.NEW, await _post(connection, job.uuid, frame)

    async def assign(
        self, job_uuid: str, miner: MinerEndpoint, started_at: float, deadline_at: float, receipt: IssuedReceipt
    ) -> None:
        """Note, before the initial request leaves, to whom it goes."""
        values = {
            "miner_hotkey": miner.hotkey,
            "miner_address": miner.address,
            "miner_port": miner.port,
            "started_at": started_at,
            "deadline_at": deadline_at,
        }
        async with self._database.begin() as connection:
            await connection.execute(update(jobs).where(jobs.c.uuid == job_uuid).values(values))
            await _keep_receipt(connection, receipt)

    async def advance(
        self,
        job_uuid: str,
        old: JobState,
        new: JobState,
        frame: str,
        *,
        deadline_at: float | None = None,
        receipt: IssuedReceipt | None = None,
        incident: Incident | None = None,
    ) -> int:
        """A job's next state together with all that follows from it. Answers the outbox id.

        :raises StaleJob: the job is not in state ``old``.
        """
        async with self._database.begin() as connection:
            result = await connection.execute(
                update(jobs)
                .where(jobs.c.uuid == job_uuid, jobs.c.state == old.value)
                .values(state=new.value, deadline_at=deadline_at)
            )
            if result.rowcount == 0:
                raise StaleJob(f"job {job_uuid} is no longer {old.value}")
            if receipt:
                await _keep_receipt(connection, receipt)
            if incident:
                await connection.execute(insert(incidents).values(vars(incident)))
            return await _post(connection, job_uuid, frame)

    async def job(self, job_uuid: str) -> Job | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.uuid == job_uuid))).one_or_none()
        return _job(row) if row else None

    async def unfinished(self) -> Sequence[Job]:
        """The jobs that have not come to an end, oldest first."""
        query = select(jobs).where(jobs.c.state.not_in(_ENDED)).order_by(jobs.c.received_at)
        async with self._database.read() as connection:
            return [_job(row) for row in await connection.execute(query)]

    async def request_cancel(self, job_uuid: str) -> bool:
        """Note that the job shall be cancelled. False: it is not known, or has ended."""
        under_way = (jobs.c.uuid == job_uuid, jobs.c.state.not_in(_ENDED))
        async with self._database.begin() as connection:
            result = await connection.execute(update(jobs).where(*under_way).values(cancel_requested=True))
            return bool(result.rowcount)

    async def mark_cheated(self, job_uuid: str, incident: Incident) -> bool:
        """Whether the job was not marked before."""
        async with self._database.begin() as connection:
            result = await connection.execute(
                update(jobs).where(jobs.c.uuid == job_uuid, jobs.c.cheated.is_(False)).values(cheated=True)
            )
            if result.rowcount:
                await connection.execute(insert(incidents).values(vars(incident)))
            return bool(result.rowcount)

    async def add_incident(self, incident: Incident) -> None:
        async with self._database.begin() as connection:
            await connection.execute(insert(incidents).values(vars(incident)))

    async def incidents_since(self, at: float) -> Sequence[Incident]:
        columns = (incidents.c.miner_hotkey, incidents.c.job_uuid, incidents.c.code, incidents.c.at)
        async with self._database.read() as connection:
            rows = await connection.execute(select(*columns).where(incidents.c.at >= at).order_by(incidents.c.id))
            return [Incident(*row) for row in rows]

    async def receipts_of(self, job_uuid: str) -> Sequence[IssuedReceipt]:
        async with self._database.read() as connection:
            rows = await connection.execute(select(receipts).where(receipts.c.job_uuid == job_uuid))
            return [IssuedReceipt(*row) for row in rows]

    async def unsent(self) -> Sequence[int]:
        """Outbox ids in the order in which the statuses came about."""
        async with self._database.read() as connection:
            return list((await connection.execute(select(outbox.c.id).order_by(outbox.c.id))).scalars())

    async def frame(self, outbox_id: int) -> str | None:
        async with self._database.read() as connection:
            query = select(outbox.c.frame).where(outbox.c.id == outbox_id)
            return (await connection.execute(query)).scalar_one_or_none()

    async def discard(self, outbox_ids: Sequence[int]) -> None:
        """Forget statuses that the facilitator has acknowledged."""
        async with self._database.begin() as connection:
            await connection.execute(delete(outbox).where(outbox.c.id.in_(outbox_ids)))


async def _post(connection: AsyncConnection, job_uuid: str, frame: str) -> int:
    result = await connection.execute(insert(outbox).values(job_uuid=job_uuid, frame=frame))
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101 - the table has one
    return int(key[0])


async def _keep_receipt(connection: AsyncConnection, receipt: IssuedReceipt) -> None:
    """One per job and kind: the first stays (section 9.3)."""
    same = (receipts.c.job_uuid == receipt.job_uuid, receipts.c.kind == receipt.kind)
    if (await connection.execute(select(receipts.c.kind).where(*same))).first() is None:
        await connection.execute(
            insert(receipts).values(
                job_uuid=receipt.job_uuid,
                kind=receipt.kind,
                payload=receipt.payload,
                validator_signature=receipt.signature,
            )
        )


def _job(row: Any) -> Job:
    miner = None
    if row.miner_hotkey is not None:
        miner = MinerEndpoint(hotkey=row.miner_hotkey, address=row.miner_address, port=row.miner_port)
    return Job(
        request=V2JobRequest.model_validate_json(row.request),
        state=JobState(row.state),
        received_at=row.received_at,
        miner=miner,
        started_at=row.started_at,
        deadline_at=row.deadline_at,
        cheated=row.cheated,
        cancel_requested=row.cancel_requested,
    )

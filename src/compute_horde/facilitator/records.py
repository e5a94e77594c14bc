"""The smaller tables: the secret, spent nonces, cheat reports, feedback."""

import contextlib
import secrets as randomness

from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.exc import IntegrityError

from compute_horde.facilitator.tables import feedbacks, jobs, microseconds, reports, secrets, spent_nonces
from compute_horde.protocol.facilitator_validator import V0JobCheated
from compute_horde.protocol.sdk_facilitator import Feedback
from compute_horde.storage.database import Database


async def kept_secret(database: Database) -> str:
    """The facilitator's own secret, made at the first start, so that tokens survive a restart."""
    kept = select(secrets.c.value).where(secrets.c.name == "token")
    with contextlib.suppress(IntegrityError):  # another replica starts at the same time, and was quicker
        async with database.begin() as connection:
            if (await connection.execute(kept)).scalar() is None:
                await connection.execute(insert(secrets).values(name="token", value=randomness.token_hex(32)))
    async with database.read() as connection:
        return str((await connection.execute(kept)).scalar_one())


class SpentNonces:
    """Nonces that have logged someone in. Each does so once (G5)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def spend(self, nonce: str, expires: float) -> bool:
        """Whether this was the first use. Those that have expired are forgotten by the housekeeping."""
        try:
            async with self._database.begin() as connection:
                row = {"nonce": nonce, "expires_us": microseconds(expires)}
                await connection.execute(insert(spent_nonces).values(row))
        except IntegrityError:
            return False
        return True


class Reports:
    """Cheat reports, kept until the validator has been sent them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def own_job(self, uuid: str, user: str, *, trusted: bool) -> str | None:
        """The validator of this job of the user's, None where there is no such job."""
        query = select(jobs.c.validator).where(
            jobs.c.uuid == uuid, jobs.c.user == user, jobs.c.on_trusted_miner.is_(trusted)
        )
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar()

    async def add(self, report: V0JobCheated, validator: str, now: float) -> bool:
        """Whether this is the first report about the job."""
        row = {
            "job_uuid": report.job_uuid,
            "trusted_job_uuid": report.trusted_job_uuid,
            "validator": validator,
            "frame": report.to_frame(),
            "delivered": False,
            "created_us": microseconds(now),
        }
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(reports).values(row))
        except IntegrityError:
            return False
        return True

    async def waiting(self, validator: str) -> list[tuple[str, str]]:
        """UUID of the job and frame of each report that is not yet delivered, oldest first."""
        query = (
            select(reports.c.job_uuid, reports.c.frame)
            .where(reports.c.validator == validator, reports.c.delivered.is_(False))
            .order_by(reports.c.created_us)
        )
        async with self._database.read() as connection:
            return [(row.job_uuid, row.frame) for row in await connection.execute(query)]

    async def mark_delivered(self, job_uuid: str) -> None:
        async with self._database.begin() as connection:
            await connection.execute(update(reports).where(reports.c.job_uuid == job_uuid).values(delivered=True))


class Feedbacks:
    """What users said of their jobs' results."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, job_uuid: str, feedback: Feedback, now: float) -> bool:
        """Whether this is the job's first feedback."""
        row = {**feedback.model_dump(), "job_uuid": job_uuid, "created_us": microseconds(now)}
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(feedbacks).values(row))
        except IntegrityError:
            return False
        return True

    async def get(self, job_uuid: str) -> Feedback | None:
        query = select(feedbacks).where(feedbacks.c.job_uuid == job_uuid)
        async with self._database.read() as connection:
            row: RowMapping | None = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        return Feedback(result_correctness=row["result_correctness"], expected_duration=row["expected_duration"])

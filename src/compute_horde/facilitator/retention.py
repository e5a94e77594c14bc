"""What the facilitator forgets, in small steps: old jobs, bulky output, spent nonces, connections long gone."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, update

from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.facilitator.tables import HAS_OUTPUT, jobs, links, microseconds, spent_nonces, statuses
from compute_horde.protocol.details import FailureDetails, MinerResponse, StatusMetadata
from compute_horde.storage.database import Database
from compute_horde.storage.retention import PAUSE_S, STEP, Rule, by_key, purge

DAY_S = 24 * 3600
LINKS_KEPT_S = 7 * DAY_S
TOO_OLD = "The output was removed: it is kept for {days:g} days."
NO_ROOM = "The output was removed to make room: the newest {gib:.1f} GiB of output are kept."

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class _Bulky:
    """A job whose output is still there. ``size``: of its last status, in bytes."""

    uuid: str
    state: str
    size: int


class Retention:
    """The rules. Each may be stopped at any moment, and run by several replicas at once. ``now``: UNIX seconds."""

    def __init__(
        self,
        database: Database,
        settings: FacilitatorSettings,
        now: Callable[[], float],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._database, self._settings, self._now, self._sleep = database, settings, now, sleep

    def rules(self) -> Mapping[str, Rule]:
        """By name, in the order in which they are applied."""
        return {
            "ended": self.date,
            "jobs": self.jobs,
            "output_by_age": self.output_by_age,
            "output_by_size": self.output_by_size,
            "nonces": self.nonces,
            "links": self.links,
        }

    async def date(self) -> int:
        """Note when jobs ended of which a release that did not note it wrote the end."""
        undated = (jobs.c.ended_us.is_(None), jobs.c.deadline_us.is_(None))
        last = select(func.max(statuses.c.created_us)).where(statuses.c.job_uuid == jobs.c.uuid)
        done = 0
        while True:
            async with self._database.read() as connection:
                uuids = (await connection.execute(select(jobs.c.uuid).where(*undated).limit(STEP))).scalars().all()
            if not uuids:
                return done
            dated = update(jobs).where(jobs.c.uuid.in_(uuids), *undated)
            async with self._database.begin() as connection:
                await connection.execute(dated.values(ended_us=last.scalar_subquery()))
            done += len(uuids)
            await self._sleep(PAUSE_S)

    async def jobs(self) -> int:
        """Forget jobs that ended long ago, with their history, reports and feedback."""
        old = jobs.c.ended_us < self._ago_us(self._settings.retention_days * DAY_S)
        return await purge(self._database, *by_key(jobs.c.uuid, old), sleep=self._sleep)

    async def output_by_age(self) -> int:
        """Remove the output of jobs that ended some time ago."""
        days = self._settings.result_retention_days
        old = jobs.c.ended_us < self._ago_us(days * DAY_S)
        done = 0
        while found := await self._bulky(old):
            for job in found:
                done += await self._strip(job, TOO_OLD.format(days=days))
        return done

    async def output_by_size(self) -> int:
        """Remove the oldest output while there is more than may be kept."""
        why = NO_ROOM.format(gib=self._settings.result_bytes / 2**30)
        async with self._database.read() as connection:
            query = select(func.coalesce(func.sum(jobs.c.result_bytes), 0)).where(HAS_OUTPUT)
            excess = int((await connection.execute(query)).scalar_one()) - self._settings.result_bytes
        done = 0
        while excess > 0 and (found := await self._bulky()):
            for job in found:
                if excess > 0:
                    done += await self._strip(job, why)
                    excess -= job.size
        return done

    async def nonces(self) -> int:
        """Forget nonces that have expired anyway."""
        expired = spent_nonces.c.expires_us < self._ago_us(0)
        return await purge(self._database, *by_key(spent_nonces.c.nonce, expired), sleep=self._sleep)

    async def links(self) -> int:
        """Forget connections that ended long ago."""
        gone = links.c.gone_at < await self._database.now() - LINKS_KEPT_S
        return await purge(self._database, *by_key(links.c.id, gone), sleep=self._sleep)

    def _ago_us(self, seconds: float) -> int:
        return microseconds(self._now() - seconds)

    async def _bulky(self, *which: ColumnElement[bool]) -> list[_Bulky]:
        """Those that ended first."""
        query = select(jobs.c.uuid, jobs.c.state, jobs.c.result_bytes).where(HAS_OUTPUT, *which)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(jobs.c.ended_us).limit(STEP))
            return [_Bulky(row.uuid, row.state, row.result_bytes) for row in rows]

    async def _strip(self, job: _Bulky, why: str) -> int:
        """Remove one job's output and say so. Answers how many were changed: one, or none."""
        last = (statuses.c.job_uuid == job.uuid, statuses.c.status == job.state)
        async with self._database.read() as connection:
            told = (await connection.execute(select(statuses.c.metadata).where(*last))).scalars().first()
        mine = (jobs.c.uuid == job.uuid, jobs.c.result_bytes == job.size)
        async with self._database.begin() as connection:
            changed = (await connection.execute(update(jobs).where(*mine).values(result_bytes=0))).rowcount
            if changed and told is not None:
                text = without_output(StatusMetadata.model_validate_json(told), why)
                await connection.execute(
                    update(statuses).where(*last).values(metadata=text.model_dump_json(exclude_none=True))
                )
        await self._sleep(PAUSE_S)
        return changed


def without_output(metadata: StatusMetadata, why: str) -> StatusMetadata:
    """The same without what a program printed and made; the notices say why."""
    response, failure = metadata.miner_response, metadata.job_failure_details
    return metadata.model_copy(
        update={
            "miner_response": response and _response_without(response, why),
            "job_failure_details": failure and _failure_without(failure, why),
        }
    )


def _response_without(response: MinerResponse, why: str) -> MinerResponse:
    gone = {"docker_process_stdout": "", "docker_process_stderr": "", "artifacts": {}}
    return response.model_copy(update={**gone, "notices": [*(response.notices or []), why]})


def _failure_without(failure: FailureDetails, why: str) -> FailureDetails:
    gone = {"docker_process_stdout": None, "docker_process_stderr": None}
    return failure.model_copy(update={**gone, "context": {**(failure.context or {}), "notices": [why]}})

"""The promise, checked where it can be broken: in the databases, at the engine, and in the client's eyes."""

import contextlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from compute_horde.storage.database import Database
from compute_horde_sdk.v1 import ComputeHordeJob

from . import engine
from .services import Services, until

TERMINAL = {"completed", "failed", "rejected", "horde_failed", "cancelled"}
ORDER = [
    "sent",
    "received",
    "queued",
    "accepted",
    "executor_ready",
    "volumes_ready",
    "streaming_ready",
    "execution_done",
]


def history_is_right(job: ComputeHordeJob) -> None:
    """Statuses only go forward within an attempt, attempts only go up, one end, and it comes last."""
    before = (0, -1)
    statuses = [entry.status.value for entry in job.status_history]
    for entry in job.status_history[:-1]:
        now = (getattr(entry, "attempt", None) or before[0], ORDER.index(entry.status.value))
        assert now > before, statuses
        before = now
    assert statuses[-1] in TERMINAL, statuses
    times = [entry.created_at for entry in job.status_history]
    assert times == sorted(times)


async def stored_once(url: str, jobs: Sequence[ComputeHordeJob]) -> None:
    """The facilitator's rows: one end for each job, of the same state as the job."""
    wanted = [job.uuid for job in jobs]
    async with _reading(url) as connection:
        state = {
            row.uuid: row.state
            for row in await connection.execute(sa.text("SELECT uuid, state FROM job"))
            if row.uuid in wanted
        }
        ends: dict[str, list[str]] = {}
        for row in await connection.execute(sa.text("SELECT job_uuid, status FROM job_status ORDER BY id")):
            if row.status in TERMINAL:
                ends.setdefault(row.job_uuid, []).append(row.status)
    for job in jobs:
        assert ends.get(job.uuid) == [job.status.value] == [state[job.uuid]]


async def agreed(url: str, table: str, key: str, jobs: Sequence[ComputeHordeJob]) -> None:
    """Nothing is under way any more in this service's own rows of these jobs."""
    async with _reading(url) as connection:
        rows = await connection.execute(sa.text(f"SELECT {key} AS uuid, state FROM {table}"))
        states = {row.uuid: row.state for row in rows}
    for job in jobs:
        assert states.get(job.uuid, "completed") in TERMINAL, (table, job.uuid, states.get(job.uuid))


def ran_once(watch: engine.Starts, jobs: Sequence[ComputeHordeJob]) -> None:
    """No attempt's container was started twice."""
    for job in jobs:
        starts = watch.starts_of(job.uuid)
        assert set(starts.values()) <= {1}, starts
        assert starts or job.status.value != "completed", job.uuid


def nothing_is_left(services: Services) -> None:
    """No container and no folder of a job outlives it for long."""
    owner = services.executor_id
    until(lambda: not engine.containers(owner), lambda: f"removed: {engine.containers(owner)}", 20)
    work = services.folder / "work"
    until(lambda: not [path for path in work.iterdir() if path.is_dir()], lambda: "folders are removed", 20)


@contextlib.asynccontextmanager
async def _reading(url: str) -> Any:
    database = Database(url)
    try:
        async with database.read() as connection:
            yield connection
    finally:
        await database.close()

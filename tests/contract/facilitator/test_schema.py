"""The migrations make the tables that the code uses, can be taken back, and keep what older versions stored."""

import importlib
import io
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, inspect, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from compute_horde.facilitator import statuses as statuses_module
from compute_horde.facilitator.handing import Handing, Unconfirmed
from compute_horde.facilitator.job_view import Viewer, job_view
from compute_horde.facilitator.listing import Chosen, JobList
from compute_horde.facilitator.rows import Conflict, NewJob
from compute_horde.facilitator.statuses import Change, Reporter
from compute_horde.facilitator.store import JobStore
from compute_horde.facilitator.tables import jobs, metadata
from compute_horde.lifecycle.states import IllegalTransition, JobState
from compute_horde.protocol.scheduling import QueueDetails
from compute_horde.protocol.sdk_facilitator import JobRequest
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate, unmigrate

OLD_UUID = "11111111-1111-4111-8111-111111111111"
REQUEST = {
    "target_validator_hotkey": "v",
    "docker_image": "alpine",
    "download_time_limit": 1,
    "execution_time_limit": 1,
    "streaming_start_time_limit": 1,
    "upload_time_limit": 1,
}
OLD_JOB = text(
    'INSERT INTO job (uuid, "user", validator, signature, tag, on_trusted_miner, request, frame, state,'
    " created_us, budget_s, deadline_us) VALUES (:uuid, 'u', 'v', :uuid, 't', 0, :request, '{}', 'sent', 1, 9, 7)"
)
OLD_STATUS = text(
    'INSERT INTO job_status (job_uuid, "user", status, metadata, created_us)'
    " VALUES (:uuid, 'u', 'sent', '{}', 1)"
)


def differences(connection: Connection) -> list[object]:
    found = compare_metadata(MigrationContext.configure(connection), metadata)
    return [change for change in found if change[0] != "remove_index"]  # indexes are the migration's alone


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def new_job(uuid: str, **changes: Any) -> NewJob:
    made = {
        "uuid": uuid,
        "user": "u",
        "validator": "v",
        "signature": uuid,
        "tag": "",
        "on_trusted_miner": False,
        "request": JobRequest.model_validate(REQUEST).model_dump_json(),
        "frame": "{}",
        "budget_s": 9,
        **changes,
    }
    return NewJob(**made)


async def test_migrations_match_the_tables_and_go_back(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/f.db")
    await migrate(database, "facilitator")
    await migrate(database, "facilitator")
    async with database.begin() as connection:
        assert await connection.run_sync(differences) == []
    for revision in ("0002", "0001"):
        await unmigrate(database, "facilitator", revision)
        await migrate(database, "facilitator")
    await unmigrate(database, "facilitator")
    async with database.begin() as connection:
        assert await connection.run_sync(tables) <= {"alembic_version"}
    await database.close()


async def test_jobs_of_the_first_version_are_read_and_go_on(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/f.db")
    await migrate(database, "facilitator", "0001")
    request = JobRequest.model_validate(REQUEST).model_dump_json(
        exclude={"run_cross_validation", "cross_validates"}
    )
    async with database.begin() as connection:
        await connection.execute(OLD_JOB, {"uuid": OLD_UUID, "request": request})
        await connection.execute(OLD_STATUS, {"uuid": OLD_UUID})
    await migrate(database, "facilitator")
    store = JobStore(database)
    stored = await store.get(OLD_UUID, "u")
    assert stored is not None
    job = job_view(stored, Viewer(True, True), 0)
    assert (job.uuid, job.docker_image, job.status) == (OLD_UUID, "alpine", "Sent")
    assert (job.run_cross_validation, job.cancel_requested) == (False, False)
    assert (job.cross_validates, job.trusted_job_uuid) == (None, None)
    part = await JobList(database).after(Chosen("u", tag="t", pending=True), "", 10)
    assert part.batches == ((OLD_UUID,),)
    handing = Handing(database)
    assert await handing.unconfirmed("v") == [Unconfirmed(OLD_UUID, "unknown")]
    asked = await handing.request_cancel(OLD_UUID, "u", 60)
    assert asked is not None
    assert (asked.state, asked.cancel_requested) == (JobState.SENT, True)
    assert await store.next_deadline() == 7 / 1_000_000  # the earlier one stays
    await database.close()


async def test_the_database_itself_refuses_a_second_repetition(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/f.db")
    await migrate(database, "facilitator")
    store = JobStore(database)
    await store.create(new_job("a"), 0)
    await store.create(new_job("b", cross_validates="a", on_trusted_miner=True), 0)
    with pytest.raises(Conflict, match="repeated already"):
        await store.create(new_job("c", cross_validates="a", on_trusted_miner=True), 0)
    async with database.begin() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(update(jobs).where(jobs.c.uuid == "a").values(cross_validates="a"))
    await database.close()


async def test_the_previous_release_goes_on_writing_and_its_jobs_go_on(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/f.db")
    await migrate(database, "facilitator", "0002")
    request = JobRequest.model_validate(REQUEST).model_dump_json(
        exclude={"queue_time_limit", "attempts", "retry_backoff", "priority"}
    )
    async with database.begin() as connection:
        await connection.execute(OLD_JOB, {"uuid": OLD_UUID, "request": request})
        await connection.execute(OLD_STATUS, {"uuid": OLD_UUID})
    await migrate(database, "facilitator")
    newer = OLD_UUID.replace("1", "2")
    async with database.begin() as connection:  # by a replica of the previous release
        await connection.execute(OLD_JOB, {"uuid": newer, "request": request})
        await connection.execute(OLD_STATUS, {"uuid": newer})
    with pytest.raises(IntegrityError):
        async with database.begin() as connection:
            await connection.execute(OLD_STATUS, {"uuid": newer})
    store, handing = JobStore(database), Handing(database)
    for uuid in (OLD_UUID, newer):
        stored = await store.get(uuid, "u")
        assert stored is not None
        job = job_view(stored, Viewer(True, True), 0)
        assert (job.attempt, job.queue, job.queue_time_limit, job.priority) == (1, None, None, 0)
    assert [job.given_to for job in await handing.unconfirmed("v")] == ["unknown", "unknown"]
    assert set(await handing.claim(await handing.unconfirmed("v"), "l" * 32)) == {OLD_UUID, newer}
    told = QueueDetails(time_limit_s=10)
    reporter = Reporter("v", "l" * 32, "i")
    for to, attempt in (
        (JobState.RECEIVED, 1),
        (JobState.ACCEPTED, 1),
        (JobState.QUEUED, 2),
        (JobState.ACCEPTED, 2),
    ):
        change = Change(newer, to, attempt=attempt, queue=told, reporter=reporter)
        moved = await store.add_status(change, 2)
        assert moved.deadline is not None
    await database.close()


async def test_the_way_back_keeps_each_status_once(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/f.db")
    await migrate(database, "facilitator")
    store = JobStore(database)
    await store.create(new_job("a"), 0)
    await store.create(new_job("b"), 0)
    for uuid, to, attempt in (
        ("a", JobState.RECEIVED, 1),
        ("a", JobState.ACCEPTED, 1),
        ("a", JobState.QUEUED, 2),
        ("a", JobState.ACCEPTED, 2),
        ("b", JobState.RECEIVED, 1),
        ("b", JobState.QUEUED, 1),
    ):
        await store.add_status(Change(uuid, to, attempt=attempt, reporter=Reporter("v", "l")), 1)
    await unmigrate(database, "facilitator", "0002")
    async with database.begin() as connection:
        rows = await connection.execute(text("SELECT job_uuid, status FROM job_status ORDER BY id"))
        assert [tuple(row) for row in rows] == [
            ("a", "sent"),
            ("b", "sent"),
            ("a", "received"),
            ("a", "accepted"),
            ("b", "received"),
        ]
        states = await connection.execute(text("SELECT state FROM job ORDER BY uuid"))
        assert list(states.scalars()) == ["accepted", "received"]
    await database.close()


async def test_a_report_that_came_between_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/f.db")
    await migrate(database, "facilitator")
    store = JobStore(database)
    await store.create(new_job("a"), 0)
    read, stale = statuses_module._read, [True]

    async def read_late(connection: AsyncConnection, change: Change) -> Any:
        row = await read(connection, change)
        return {**row, "attempt": 7} if stale[0] else row

    monkeypatch.setattr(statuses_module, "_read", read_late)
    with pytest.raises(IllegalTransition, match="meanwhile"):
        await store.add_status(Change("a", JobState.RECEIVED, reporter=Reporter("v", "l")), 1)
    stale[0] = False
    assert (await store.add_status(Change("a", JobState.RECEIVED, reporter=Reporter("v", "l")), 1)).user == "u"
    await database.close()


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
@pytest.mark.parametrize("step", ["upgrade", "downgrade"])
def test_the_migration_can_be_written_for_each_database(dialect: str, step: str) -> None:
    written = io.StringIO()
    context = MigrationContext.configure(
        dialect_name=dialect, opts={"as_sql": True, "output_buffer": written, "literal_binds": True}
    )
    module = importlib.import_module("compute_horde.storage.migrations.facilitator.0002_cancel")
    with Operations.context(context):
        getattr(module, step)()
    assert "cross_validates" in written.getvalue()
    assert "job_newest_pending" in written.getvalue()


async def test_reading_the_figures_asks_for_no_job_that_has_ended(bench: Any) -> None:
    """An index leads to those under way, however many have ended."""
    async with bench.facilitator.database.read() as connection:
        for query in (
            "SELECT state, count(*) FROM job WHERE deadline_us IS NOT NULL GROUP BY state",
            "SELECT min(created_us) FROM job WHERE deadline_us IS NOT NULL AND state = 'sent'",
        ):
            plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")).all()
            assert "job_newest_pending" in str(plan) or "job_deadline" in str(plan), plan

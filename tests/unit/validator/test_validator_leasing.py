"""The look for work of dead processes costs next to nothing where there is none."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.lifecycle.states import JobState
from compute_horde.storage.database import Database
from compute_horde.storage.leases import Owners
from compute_horde.storage.migrate import migrate
from compute_horde.validator.leasing import Leases
from compute_horde.validator.rows import Admission, Job
from compute_horde.validator.store import UNDER_WAY, Store
from compute_horde.validator.testing.scripted import job_request

USER = throwaway_hotkey("//Alice")
OVER, ALIVE = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/validator.db")
    await migrate(made, "validator")
    yield made
    await made.close()


async def add(database: Database, uuid: str, state: JobState) -> None:
    """A job of a process that is dead; its status was acknowledged."""
    store = Store(database, "owner-dead", 3600)
    await store.add_job(Job(job_request(uuid, USER), state, 1.0), None, "{}")
    async with database.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM outbox")


async def test_owners_of_jobs_that_have_ended_are_not_followed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = database.begin, 0

    def counted() -> Any:
        nonlocal begun
        begun += 1
        return begin()

    await add(database, OVER, JobState.COMPLETED)
    owners = Owners(database)
    await owners.start()
    leases = Leases(database, owners, 15)
    monkeypatch.setattr(database, "begin", counted)
    assert not (await leases.take_over()).jobs
    assert begun == 0
    await add(database, ALIVE, JobState.RECEIVED)
    assert [job.uuid for job in (await leases.take_over()).jobs] == [ALIVE]
    await owners.close()


async def test_the_index_answers_what_is_asked_every_second(database: Database) -> None:
    states = ", ".join(f"'{state}'" for state in UNDER_WAY)
    query = f"EXPLAIN QUERY PLAN SELECT DISTINCT lease_owner FROM jobs WHERE state IN ({states})"
    async with database.read() as connection:
        plan = (await connection.exec_driver_sql(query)).all()
    assert "USING INDEX ix_jobs_state" in str(plan)


@pytest.mark.parametrize(("uuid", "found"), [(OVER, Admission.KNOWN), (ALIVE, Admission.REPLAYED)])
async def test_a_job_that_another_process_lets_in_at_the_same_moment_is_let_in_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, uuid: str, found: Admission
) -> None:
    async def too_late(*_: Any) -> tuple[Admission, int]:
        raise IntegrityError("INSERT", None, ValueError("UNIQUE"))

    first, second = Store(database, "owner-a", 15), Store(database, "owner-b", 15)
    job = Job(job_request(OVER, USER), JobState.RECEIVED, 1.0)
    assert (await first.add_job(job, "key", "{}"))[0] is Admission.NEW
    monkeypatch.setattr(second, "_add_job", too_late)
    same = Job(job_request(uuid, USER), JobState.RECEIVED, 1.0)
    assert await second.add_job(same, "key", "{}") == (found, 0)

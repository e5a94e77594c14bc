"""Checks, their time limits, and what strangers are told."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from compute_horde.storage.database import Database
from compute_horde.telemetry.health import Check, Health, NotReady, answers, flag, remembered


async def fine() -> None:
    """All is well."""


async def gone() -> None:
    raise NotReady("the facilitator is not connected")


async def crash() -> None:
    raise ValueError("postgresql://horde:hidden@db/horde")


async def hang() -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    made = Database("sqlite+aiosqlite:///:memory:")
    yield made
    await made.close()


async def test_all_is_well() -> None:
    report = await Health({"database": fine, "engine": fine}).ready()
    assert (report.ok, report.http_status) == (True, 200)
    told = report.to_json()
    assert told["status"] == "ok"
    assert {name: found["status"] for name, found in told["checks"].items()} == {"database": "ok", "engine": "ok"}


@pytest.mark.parametrize(
    ("check", "why"),
    [
        (gone, "the facilitator is not connected"),
        (crash, "ValueError"),
        (hang, "no answer in time"),
    ],
)
async def test_what_is_wrong_is_told_without_secrets(check: Check, why: str) -> None:
    report = await Health({"database": fine, "link": check}, limit_s=0.01).ready()
    assert (report.ok, report.http_status, report.status) == (False, 503, "unavailable")
    told = report.to_json()["checks"]
    assert told["database"]["status"] == "ok"
    assert (told["link"]["status"], told["link"]["why"]) == ("failed", why)


async def test_checks_run_beside_each_other() -> None:
    both = asyncio.Barrier(2)

    async def meet() -> None:
        await both.wait()

    assert (await Health({"one": meet, "two": meet}).ready()).ok


async def test_a_service_that_is_not_ready_still_lives() -> None:
    health = Health({"link": gone}, unready="not ready")
    assert (await health.ready()).status == "not ready"
    assert (await health.live()).to_json() == {"status": "ok", "checks": {}}


async def test_what_only_a_restart_mends_ends_the_life() -> None:
    assert not (await Health({}, {"supervision": gone}).live()).ok


async def test_a_flag_is_looked_at_each_time() -> None:
    started: list[bool] = []
    health = Health({"started": flag(lambda: bool(started), "still starting")})
    assert (await health.ready()).checks["started"].why == "still starting"
    started.append(True)
    assert (await health.ready()).ok


async def test_the_database_is_asked(database: Database) -> None:
    assert (await Health({"database": answers(database)}).ready()).ok
    nowhere = Database("sqlite+aiosqlite:////nowhere/at/all.db")
    report = await Health({"database": answers(nowhere)}).ready()
    assert report.checks["database"].why == "DatabaseUnavailable"
    await nowhere.close()


async def test_a_good_answer_is_remembered_and_a_bad_one_is_not() -> None:
    now, asked, broken = 0.0, 0, True

    async def engine() -> None:
        nonlocal asked
        asked += 1
        if broken:
            raise NotReady("the engine does not answer")

    health = Health({"engine": remembered(engine, 30, clock=lambda: now)})
    assert not (await health.ready()).ok
    broken = False
    assert (await health.ready()).ok
    assert (await health.ready()).ok
    assert asked == 2
    now, broken = 30.0, True
    assert not (await health.ready()).ok

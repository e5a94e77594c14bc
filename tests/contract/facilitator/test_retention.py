"""What is forgotten: old jobs with all that belongs to them, bulky output by age and size, nonces, links."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from tests.contract.facilitator.bench import open_bench

from compute_horde.facilitator.retention import DAY_S, Retention
from compute_horde.facilitator.tables import feedbacks, jobs, links, reports, spent_nonces, statuses
from compute_horde.protocol.extensions import announcement

BULK = "x" * 5000


@pytest.fixture
async def bench(tmp_path: Path, clock: Any) -> Any:
    url = f"sqlite:///{tmp_path}/facilitator.db"
    async with open_bench(url, clock, retention_days=7, result_retention_days=2, result_bytes=12_000) as bench:
        yield bench


def retention(bench: Any) -> Retention:
    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    return Retention(bench.facilitator.database, bench.facilitator.settings, bench.clock, at_once)


def ended(stdout: str = BULK) -> dict[str, Any]:
    told = {"docker_process_stdout": stdout, "docker_process_stderr": "e", "artifacts": {"/a": "QQ=="}}
    return {"miner_response": {**told, "upload_results": {"f": "{}"}, "notices": ["Slow."]}}


async def made(bench: Any, peer: Any, status: str = "completed", metadata: Any = None, **changes: Any) -> str:
    uuid = str((await bench.post_job(await bench.login(), **changes)).json()["uuid"])
    await peer.receive()
    assert (await peer.status(uuid, status, metadata or ended()))["status"] == "success"
    return uuid


async def count(bench: Any, table: Any) -> int:
    async with bench.facilitator.database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def shown(bench: Any, uuid: str) -> Any:
    return await bench.job(uuid, {**await bench.login(), **announcement()})


async def test_old_jobs_go_with_all_that_belongs_to_them(bench: Any) -> None:
    peer = await bench.validator()
    old, trusted = await made(bench, peer), await made(bench, peer, on_trusted_miner=True)
    token = await bench.login()
    feedback = {"result_correctness": 1.0, "expected_duration": None}
    await bench.http.put(
        f"/api/v1/jobs/{old}/feedback/", json=feedback, headers={**token, **bench.sign_whole(feedback)}
    )
    report = {"job_uuid": old, "trusted_job_uuid": trusted, "details": None}
    await bench.http.post("/api/v1/cheated-job/", json=report, headers={**token, **bench.sign_whole(report)})
    assert [await count(bench, table) for table in (feedbacks, reports)] == [1, 1]
    under_way = (await bench.post_job(token, execution_time_limit=604_800)).json()["uuid"]
    for _ in range(2):
        await peer.receive()
    bench.clock.ahead += 6.9 * DAY_S
    assert await retention(bench).jobs() == 0
    bench.clock.ahead += 0.2 * DAY_S
    await peer.send({"message_type": "V0Heartbeat"})
    again = await bench.validator()
    assert (await again.receive())["uuid"] == under_way
    newer = await made(bench, again)
    assert await retention(bench).jobs() == 2
    assert await retention(bench).jobs() == 0
    listed = (await bench.http.get("/api/v1/jobs/", headers=await bench.login())).json()
    assert {job["uuid"] for job in listed["results"]} == {under_way, newer}
    assert [await count(bench, table) for table in (feedbacks, reports, statuses)] == [0, 0, 3]


async def test_events_go_on_behind_what_was_forgotten(bench: Any) -> None:
    peer = await bench.validator()
    await made(bench, peer)
    bench.clock.ahead += 8 * DAY_S
    await retention(bench).jobs()
    again = await bench.validator()
    session = bench.facilitator.login.session((await bench.login())["Authorization"])
    after = await bench.facilitator.events.start_after(session, 2)
    uuid = await made(bench, again)
    stream = bench.facilitator.events.stream(session, after)
    texts = [await anext(stream) for _ in range(3)]
    assert [uuid.encode() in text for text in texts] == [False, True, True]
    await stream.aclose()


async def test_the_output_of_a_result_goes_by_age_and_says_so(bench: Any) -> None:
    peer = await bench.validator()
    uuid, small = await made(bench, peer), await made(bench, peer, metadata=ended("small"))
    bench.clock.ahead += 1.9 * DAY_S
    assert await retention(bench).output_by_age() == 0
    bench.clock.ahead += 0.2 * DAY_S
    assert await retention(bench).output_by_age() == 1
    assert await retention(bench).output_by_age() == 0
    job = await shown(bench, uuid)
    assert (job["stdout"], job["stderr"], job["artifacts"], job["status"]) == ("", "", {}, "Completed")
    assert job["upload_results"] == {"f": "{}"}
    response = job["status_history"][-1]["metadata"]["miner_response"]
    assert response["notices"] == ["Slow.", "The output was removed: it is kept for 2 days."]
    assert (await shown(bench, small))["stdout"] == "small"


async def test_so_does_what_a_failed_job_printed(bench: Any) -> None:
    peer = await bench.validator()
    failure = {"reason": "nonzero_return_code", "stage": "execution", "message": "No.", "context": {"k": 1}}
    uuid = await made(bench, peer, "failed", {"job_failure_details": {**failure, "docker_process_stdout": BULK}})
    bench.clock.ahead += 3 * DAY_S
    assert await retention(bench).output_by_age() == 1
    details = (await shown(bench, uuid))["status_history"][-1]["metadata"]["job_failure_details"]
    assert "docker_process_stdout" not in details
    assert details["context"] == {"k": 1, "notices": ["The output was removed: it is kept for 2 days."]}


async def test_the_oldest_output_makes_room(bench: Any) -> None:
    peer = await bench.validator()
    uuids = []
    for _ in range(4):
        uuids.append(await made(bench, peer))
        bench.clock.ahead += 1
    assert await retention(bench).output_by_size() == 2
    assert await retention(bench).output_by_size() == 0
    assert [bool((await shown(bench, uuid))["stdout"]) for uuid in uuids] == [False, False, True, True]
    metadata = (await shown(bench, uuids[0]))["status_history"][-1]["metadata"]
    assert "to make room" in metadata["miner_response"]["notices"][-1]


async def test_two_replicas_remove_an_output_once(bench: Any) -> None:
    peer = await bench.validator()
    await made(bench, peer)
    bench.clock.ahead += 3 * DAY_S
    done = await asyncio.gather(*(retention(bench).output_by_age() for _ in range(2)))
    assert sum(done) == 1


async def test_jobs_that_an_older_release_ended_are_dated(bench: Any) -> None:
    peer = await bench.validator()
    uuid = await made(bench, peer)
    async with bench.facilitator.database.begin() as connection:
        before = (await connection.execute(select(jobs.c.ended_us))).scalar_one()
        await connection.execute(update(jobs).values(ended_us=None))
    assert await retention(bench).date() == 1
    assert await retention(bench).date() == 0
    async with bench.facilitator.database.read() as connection:
        assert (
            await connection.execute(select(jobs.c.ended_us).where(jobs.c.uuid == uuid))
        ).scalar_one() == before


async def test_nonces_and_links_go(bench: Any) -> None:
    peer = await bench.validator()
    await bench.login()
    assert await count(bench, spent_nonces) == 1
    bench.clock.ahead += 301
    assert await retention(bench).nonces() == 1
    await peer.hang_up()
    assert await retention(bench).links() == 0
    async with bench.facilitator.database.begin() as connection:
        await connection.execute(update(links).values(gone_at=1.0))
    assert await retention(bench).links() == 1


async def test_the_rules_are_applied_while_the_service_runs(bench: Any) -> None:
    peer = await bench.validator()
    await made(bench, peer)
    bench.clock.ahead += 8 * DAY_S
    done = await bench.facilitator.housekeeper.once()
    assert done == {
        "ended": 0,
        "jobs": 1,
        "output_by_age": 0,
        "output_by_size": 0,
        "nonces": 1,
        "links": 0,
        "shrink": 0,
    }


async def test_a_list_that_is_too_large_to_be_held_is_sent_as_it_is_read(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("compute_horde.facilitator.listing.BATCH_BYTES", 3000)
    peer, token = await bench.validator(), await bench.login()
    volume = {"volume_type": "inline", "contents": "A" * 2000, "relative_path": None}
    uuids = [(await bench.post_job(token, volumes=[volume] * (n % 2))).json()["uuid"] for n in range(7)]
    for _ in uuids:
        await peer.receive()
    load, loaded = bench.facilitator.job_list.load, []

    async def note(batch: Any) -> Any:
        loaded.append(len(batch))
        return await load(batch)

    monkeypatch.setattr(bench.facilitator.job_list, "load", note)
    page = (await bench.http.get("/api/v1/jobs/?page_size=5", headers=token)).json()
    assert [job["uuid"] for job in page["results"]] == uuids[:1:-1]
    assert (page["count"], page["previous"]) == (7, None)
    assert "page=2" in page["next"]
    assert len(loaded) > 1
    loaded.clear()
    page = (await bench.http.get("/api/v1/jobs/?page_size=1", headers=token)).json()
    assert ([job["uuid"] for job in page["results"]], loaded) == (uuids[-1:], [1])

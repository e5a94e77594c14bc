"""Finding jobs again: by tag, pending or not, on from a given job; stable while jobs come and end."""

from typing import Any

import httpx
import pytest

URL = "/api/v1/jobs/"
RESULT = {"miner_response": {"docker_process_stdout": "", "docker_process_stderr": ""}}


async def posted(bench: Any, token: dict[str, str], count: int, **changes: Any) -> list[str]:
    return [str((await bench.post_job(token, **changes)).json()["uuid"]) for _ in range(count)]


async def listed(bench: Any, token: dict[str, str], query: str) -> Any:
    answer = await bench.http.get(query if query.startswith("http") else URL + query, headers=token)
    assert answer.status_code == 200, answer.text
    return answer.json()


def uuids(page: Any) -> list[str]:
    return [job["uuid"] for job in page["results"]]


async def test_a_list_goes_on_behind_a_job_while_jobs_come_and_end(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    made = await posted(bench, token, 7)
    page = await listed(bench, token, "?before=&page_size=3&pending=true")
    assert (page["count"], page["previous"], uuids(page)) == (7, None, made[:3:-1])
    following = httpx.URL(page["next"])
    assert str(following.copy_with(query=None)) == f"http://facilitator{URL}"
    assert dict(following.params) == {"page_size": "3", "pending": "true", "before": made[4]}
    await posted(bench, token, 2)
    await peer.status(made[4], "completed", RESULT)
    second = await listed(bench, token, page["next"])
    assert (second["count"], uuids(second)) == (8, made[3:0:-1])
    last = await listed(bench, token, second["next"])
    assert (uuids(last), last["next"]) == (made[:1], None)


async def test_jobs_of_the_same_moment_are_neither_missed_nor_repeated(bench: Any, monkeypatch: Any) -> None:
    await bench.validator()
    token, now = await bench.login(), bench.clock()
    monkeypatch.setattr(bench.facilitator.jobs, "_now", lambda: now)
    made = await posted(bench, token, 5)
    seen, url = [], "?before=&page_size=2"
    while url:
        page = await listed(bench, token, url)
        seen += uuids(page)
        url = page["next"]
    assert seen == sorted(made, reverse=True)


async def test_pending_and_tag_choose_together(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    first, second = await posted(bench, token, 2, tag="queue")
    (other,) = await posted(bench, token, 1)
    for _ in range(3):
        await peer.receive()
    await peer.status(first, "rejected")
    for query, expected in {
        "?pending=true": [other, second],
        "?pending=false": [first],
        "?tag=queue&pending=true": [second],
        "?tag=queue&before=": [second, first],
        f"?pending=true&uuid={first}&uuid={other}": [other],
        f"?before={other}&page=1": [second, first],
        f"?before={other.upper()}&tag=queue&pending=false": [first],
        f"?before={first}": [],
    }.items():
        page = await listed(bench, token, query)
        assert uuids(page) == expected, query
    assert (await listed(bench, token, f"?before={first}&pending=true"))["count"] == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("pending=yes", "pending"),
        ("pending=", "pending"),
        ("before=nonsense", "before"),
        ("before=11111111-1111-4111-8111-111111111111", "before"),
    ],
)
async def test_bad_queue_parameters_are_400_by_name(bench: Any, query: str, field: str) -> None:
    answer = await bench.http.get(f"{URL}?{query}", headers=await bench.login())
    assert (answer.status_code, list(answer.json())) == (400, [field])


async def test_a_list_cannot_start_at_another_users_job(bench: Any, bob: Any) -> None:
    await bench.validator()
    (uuid,) = await posted(bench, await bench.login(), 1)
    answer = await bench.http.get(f"{URL}?before={uuid}", headers=await bench.login(bob))
    assert (answer.status_code, list(answer.json())) == (400, ["before"])


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("deadline_us IS NOT NULL", "job_newest_pending"),
        ("tag = 'x'", "job_newest_of_tag"),
        ("1 = 1", "job_newest"),
    ],
)
async def test_lists_are_read_from_an_index_without_sorting(bench: Any, condition: str, index: str) -> None:
    query = (
        f"SELECT * FROM job WHERE \"user\" = 'u' AND {condition} AND (created_us, uuid) < (5, 'x')"
        " ORDER BY created_us DESC, uuid DESC LIMIT 3"
    )
    async with bench.facilitator.database.begin() as connection:
        plan = [row.detail for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
    assert len(plan) == 1
    assert f"USING INDEX {index} " in plan[0]

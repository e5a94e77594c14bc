"""A job and its repetition on the trusted miner find each other."""

import asyncio
from typing import Any

import pytest


async def pair(bench: Any, token: dict[str, str]) -> tuple[str, str]:
    original = (await bench.post_job(token, run_cross_validation=True)).json()["uuid"]
    repetition = await repeat(bench, token, original)
    assert repetition.status_code == 201, repetition.text
    return original, repetition.json()["uuid"]


async def repeat(bench: Any, token: dict[str, str], original: str, key: Any = None, **changes: Any) -> Any:
    made = {"cross_validates": original, "on_trusted_miner": True, "tag": f"cross-validates:{original}", **changes}
    return await bench.post_job(token, *([key] if key else []), **made)


async def test_a_job_and_its_repetition_name_each_other(bench: Any) -> None:
    await bench.validator()
    token = await bench.login()
    original, repetition = await pair(bench, token)
    first, second = await bench.job(original, token), await bench.job(repetition, token)
    assert (first["run_cross_validation"], first["trusted_job_uuid"]) == (True, repetition)
    assert first["cross_validates"] is None
    assert (second["run_cross_validation"], second["trusted_job_uuid"]) == (False, None)
    assert second["cross_validates"] == original
    listed = (await bench.http.get("/api/v1/jobs/", headers=token)).json()["results"]
    assert [job["trusted_job_uuid"] for job in listed] == [None, repetition]


async def test_a_job_is_repeated_once(bench: Any) -> None:
    await bench.validator()
    token = await bench.login()
    original, _ = await pair(bench, token)
    again = await repeat(bench, token, original)
    assert (again.status_code, again.json()) == (400, {"cross_validates": ["This job is repeated already."]})


async def test_of_two_repetitions_at_once_one_is_taken(bench: Any) -> None:
    await bench.validator()
    token = await bench.login()
    original = (await bench.post_job(token)).json()["uuid"]
    answers = await asyncio.gather(*(repeat(bench, token, original) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 400, 400, 400, 400]


async def test_the_same_repetition_sent_again_is_the_same_job(bench: Any) -> None:
    await bench.validator()
    token = await bench.login()
    original = (await bench.post_job(token)).json()["uuid"]
    body = bench.body(cross_validates=original, on_trusted_miner=True)
    headers = {**token, **bench.sign(body)}
    sent = (bench.http.post("/api/v1/job-docker/", json=body, headers=headers) for _ in range(4))
    answers = await asyncio.gather(*sent)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["uuid"] for answer in answers}) == 1


@pytest.mark.parametrize("value", ["nonsense", "", "11111111-1111-4111-8111-111111111111"])
async def test_what_is_no_job_is_not_repeated(bench: Any, value: str) -> None:
    await bench.validator()
    answer = await repeat(bench, await bench.login(), value)
    assert (answer.status_code, list(answer.json())) == (400, ["cross_validates"])


async def test_others_jobs_and_trusted_jobs_are_not_repeated(bench: Any, bob: Any) -> None:
    await bench.validator()
    token = await bench.login()
    original, repetition = await pair(bench, token)
    of_another = await repeat(bench, await bench.login(bob), original, bob)
    of_a_trusted = await repeat(bench, token, repetition)
    on_a_miner = await repeat(bench, token, original, on_trusted_miner=False)
    for answer in (of_another, of_a_trusted, on_a_miner):
        assert (answer.status_code, list(answer.json())) == (400, ["cross_validates"])

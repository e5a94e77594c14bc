"""The wire side of the client against the existing network's facilitator (PROTOCOL.md section 2)."""

import asyncio
import datetime as dt
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.contract.sdk.horde import order, session
from tests.contract.sdk.legacy import LegacyFacilitator

from compute_horde_sdk._internal.exceptions import (
    ComputeHordeAuthenticationError,
    ComputeHordeError,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
    ComputeHordeValidatorNotConnectedError,
)
from compute_horde_sdk._internal.port import JobQuery
from compute_horde_sdk._internal.specs.volumes import HTTPInputVolume, HTTPOutputVolume, InlineInputVolume
from compute_horde_sdk._internal.wire.session import Session
from compute_horde_sdk._internal.wire.wishes import WISHES

POST = "/api/v1/job-docker/"
JOBS = "/api/v1/jobs/"
DONE = {
    "miner_response": {
        "docker_process_stdout": "out",
        "docker_process_stderr": "err",
        "artifacts": {"/a/b": "eA=="},
        "upload_results": {},
    }
}


@pytest.fixture
def legacy() -> LegacyFacilitator:
    return LegacyFacilitator()


@pytest.fixture
async def horde(legacy: LegacyFacilitator) -> AsyncIterator[Session]:
    made = session(legacy)
    yield made
    await made.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_job_is_created_and_fetched(legacy: LegacyFacilitator, horde: Session) -> None:
    made = await horde.create(
        order(
            args=["a", "b"],
            env={"B": "1", "A": "2"},
            artifacts_dir=None,
            input_volumes={"/volume/x.txt": InlineInputVolume("eA==")},
            queue="mine",
        )
    )
    found = await horde.fetch(made.uuid)
    assert found == made
    assert (found.status, found.queue, found.created_at.utcoffset()) == (
        "sent",
        "mine",
        made.created_at.utcoffset(),
    )
    assert (found.run_cross_validation, found.trusted_job_uuid, found.cancel_requested) == (False, None, False)
    assert not await horde.extensions()


async def test_what_it_does_not_know_is_not_asked_of_it(legacy: LegacyFacilitator, horde: Session) -> None:
    made = await horde.create(order())
    with pytest.raises(ComputeHordeUnsupportedError):
        await horde.cancel(made.uuid)
    with pytest.raises(ComputeHordeUnsupportedError):
        await horde.explain(made.uuid)
    for name, value in {"queue_time_limit_sec": 1, "attempts": 2, "retry_backoff_sec": 1, "priority": 1}.items():
        wish: dict[str, Any] = {name: value}
        with pytest.raises(ComputeHordeUnsupportedError, match=name):
            await horde.create(order(**wish))
    assert [piece async for piece in horde.output(made.uuid)] == []
    async with horde.subscribe(made.uuid) as news:
        news.refreshing()
        assert not horde.connected
        assert await news.next(0.001) is None
    paths = {request.url.path for request in legacy.requests}
    assert paths == {"/auth/nonce", "/auth/login", POST}
    assert len(legacy.jobs) == 1


async def test_what_it_does_anyway_can_be_wished(legacy: LegacyFacilitator, horde: Session) -> None:
    made = await horde.create(order(queue_time_limit_sec=0, attempts=1, retry_backoff_sec=2))
    (sent,) = legacy.sent("POST", POST)
    assert WISHES.isdisjoint(json.loads(sent.content))
    legacy.advance(made.uuid, "accepted")
    found = await horde.fetch(made.uuid)
    assert (found.place, found.attempt, found.attempts) == (None, 1, None)
    assert [entry.attempt for entry in found.history] == [None, None]


@pytest.mark.parametrize(
    ("metadata", "status", "code"),
    [
        (("completed", DONE), "completed", None),
        (("failed", {"job_failure_details": {"reason": "timeout", "stage": "execution", "message": "m"}}),
         "failed", "execution_timeout"),
        (("failed", {"horde_failure_details": {"reported_by": "validator", "reason": "volumes_timed_out",
                                               "message": "m"}}), "failed", "volumes_timed_out"),
        (("rejected", {"job_rejection_details": {"rejected_by": "miner", "reason": "busy", "message": "m"}}),
         "rejected", "busy"),
    ],
)  # fmt: skip
async def test_endings(
    metadata: tuple[str, dict[str, object]],
    status: str,
    code: str | None,
    legacy: LegacyFacilitator,
    horde: Session,
) -> None:
    made = await horde.create(order())
    legacy.advance(made.uuid, "accepted")
    legacy.advance(made.uuid, *metadata)
    found = await horde.look(made.uuid)
    assert found.status == status
    assert found.result is not None
    assert (found.error.code if found.error else None) == code


async def test_a_status_that_it_cannot_show_is_a_failure_of_its(legacy: LegacyFacilitator, horde: Session) -> None:
    made = await horde.create(order())
    legacy.advance(made.uuid, "a new word")
    with pytest.raises(ComputeHordeResponseError) as caught:
        await horde.fetch(made.uuid)
    assert (caught.value.code, caught.value.retryable) == ("facilitator_failed", True)


@pytest.mark.parametrize("queue", [None, "mine"])
@pytest.mark.parametrize("pending", [None, True, False])
async def test_the_list_is_put_in_order(
    queue: str | None, pending: bool | None, legacy: LegacyFacilitator, horde: Session
) -> None:
    made = [await horde.create(order(queue="mine" if number % 2 else "")) for number in range(120)]
    for one in made[::3]:
        legacy.advance(one.uuid, "failed")
    found = [one async for one in horde.iterate(queue, pending)]
    created = [one.created_at for one in found]
    assert created == sorted(created, reverse=True)
    expected = {
        one.uuid
        for number, one in enumerate(made)
        if (queue is None or number % 2) and (pending is None or (number % 3 != 0) is pending)
    }
    assert len(found) == len(expected)
    assert {one.uuid for one in found} == expected


async def test_pages(legacy: LegacyFacilitator, horde: Session) -> None:
    for _ in range(3):
        await horde.create(order())
    page = await horde.list_jobs(JobQuery(page=1, page_size=2))
    assert (len(page.jobs), page.count, page.more) == (2, 3, True)
    with pytest.raises(ComputeHordeNotFoundError, match="Invalid page"):
        await horde.list_jobs(JobQuery(page=3, page_size=2))
    for unknown in (str(uuid.uuid4()), "nonsense"):
        with pytest.raises(ComputeHordeNotFoundError):
            await horde.fetch(unknown)


async def test_refusals(legacy: LegacyFacilitator, horde: Session) -> None:
    with pytest.raises(ComputeHordeValidatorNotConnectedError):
        await horde.create(order(validator_hotkey="another"))
    with pytest.raises(ComputeHordeValidationError, match="blank") as caught:
        await horde.create(order(args=[" "]))
    assert caught.value.field == "args"
    legacy.hotkey.sign = lambda data: bytes(64)  # type: ignore[method-assign] # a key that signs wrongly
    with pytest.raises(ComputeHordeResponseError, match="500"):
        await horde.create(order())
    legacy.whitelisted = False
    with pytest.raises(ComputeHordeAuthenticationError):
        await horde.authenticate()


async def test_cheat_reports(legacy: LegacyFacilitator, horde: Session) -> None:
    job, trusted = await horde.create(order()), await horde.create(order(on_trusted_miner=True))
    with pytest.raises(ComputeHordeNotFoundError, match="Trusted job not found"):
        await horde.report_cheat(job.uuid, job.uuid, None)
    legacy.lost["/api/v1/cheated-job/"].append(httpx.ReadError("cut off"))
    assert await horde.report_cheat(job.uuid, trusted.uuid, {"why": "é"}) == "Job reported as cheated"
    assert legacy.reports[job.uuid]["details"] == {"why": "é"}
    with pytest.raises(ComputeHordeResponseError, match="already exists"):
        await horde.report_cheat(job.uuid, trusted.uuid, None)


async def test_a_token_that_ran_out(legacy: LegacyFacilitator, horde: Session) -> None:
    await horde.authenticate()
    legacy.expired.add("token-1")
    await horde.create(order())
    assert (legacy.logins, len(legacy.jobs)) == (2, 1)


LOST = [httpx.ReadError("cut off"), httpx.ReadTimeout("stalled"), httpx.RemoteProtocolError("no answer")]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
async def test_a_creation_whose_answer_is_lost_is_found_in_the_list(
    error: Exception, legacy: LegacyFacilitator, horde: Session
) -> None:
    for _ in range(60):
        await horde.create(order("other"))
    legacy.lost[POST].append(error)
    volumes: dict[str, Any] = {
        "input_volumes": {"/volume/a": HTTPInputVolume("https://x.test/a")},
        "output_volumes": {"/output/a": HTTPOutputVolume(http_method="PUT", url="https://x.test/b")},
    }
    made = await horde.create(order(args=["a "], env={"B": "1", "A": "2"}, **volumes))
    assert list(legacy.jobs)[-1] == made.uuid
    assert len(legacy.sent("POST", POST)) == 61


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
async def test_a_creation_that_did_not_arrive_is_unknown_and_not_sent_again(
    error: Exception, legacy: LegacyFacilitator, horde: Session
) -> None:
    await horde.create(order())  # an equal one, but known
    legacy.faults[POST].append(error)
    with pytest.raises(ComputeHordeError) as caught:
        await horde.create(order())
    assert (caught.value.code, caught.value.retryable) == ("creation_unknown", False)
    assert "iter_jobs()" in caught.value.hint
    assert len(legacy.sent("POST", POST)) == 2


async def test_an_older_equal_job_is_not_taken_for_the_lost_one(legacy: LegacyFacilitator, horde: Session) -> None:
    another = session(legacy)
    old = await another.create(order())
    legacy.jobs[old.uuid]["created_at"] = "2025-01-01T00:00:00.000000Z"
    legacy.faults[POST].append(httpx.ReadError("cut off"))
    with pytest.raises(ComputeHordeError, match="may have been created"):
        await horde.create(order())
    await another.aclose()


@pytest.mark.parametrize("hours", [-3, 3])
async def test_the_machines_clock_plays_no_part(hours: int, legacy: LegacyFacilitator, horde: Session) -> None:
    legacy.clock_ahead = dt.timedelta(hours=hours)
    legacy.lost[POST].append(httpx.ReadError("cut off"))
    made = await horde.create(order())
    assert made.uuid in legacy.jobs


async def test_equal_jobs_created_at_once_are_told_apart(legacy: LegacyFacilitator, horde: Session) -> None:
    legacy.lost[POST].extend([httpx.ReadError("cut off")] * 3)
    made = await asyncio.gather(*(horde.create(order()) for _ in range(10)))
    assert {one.uuid for one in made} == set(legacy.jobs)
    assert len(legacy.sent("POST", POST)) == 10


async def test_no_job_is_given_to_two_creations(legacy: LegacyFacilitator, horde: Session) -> None:
    await horde.authenticate()
    legacy.faults[POST].extend([httpx.ReadError("cut off")] * 2)  # these two make none
    outcomes = await asyncio.gather(*(horde.create(order()) for _ in range(6)), return_exceptions=True)
    made = [one for one in outcomes if not isinstance(one, BaseException)]
    assert len(made) == len({one.uuid for one in made}) == len(legacy.jobs) == 4
    assert {one.code for one in outcomes if isinstance(one, ComputeHordeError)} == {"creation_unknown"}


async def test_more_jobs_than_lost_ones_fit_none(legacy: LegacyFacilitator, horde: Session) -> None:
    await horde.authenticate()
    another = session(legacy)
    await another.create(order())
    legacy.lost[POST].append(httpx.ReadError("cut off"))
    with pytest.raises(ComputeHordeError, match="2 jobs fit"):
        await horde.create(order())
    await another.aclose()


async def test_a_list_that_cannot_be_had_leaves_it_unknown(legacy: LegacyFacilitator, horde: Session) -> None:
    legacy.lost[POST].append(httpx.ReadError("cut off"))
    legacy.faults[JOBS].extend([httpx.Response(500)] * 20)
    with pytest.raises(ComputeHordeError) as caught:
        await horde.create(order())
    assert caught.value.code == "creation_unknown"


@pytest.mark.parametrize("fault", [httpx.Response(500), httpx.Response(503), httpx.Response(429)])
async def test_what_was_not_carried_out_is_sent_again(
    fault: httpx.Response, legacy: LegacyFacilitator, horde: Session
) -> None:
    legacy.faults[POST].extend([httpx.ConnectError("refused"), httpx.WriteError("reset"), fault])
    await horde.create(order())
    assert len(legacy.jobs) == 1
    assert len({request.content for request in legacy.sent("POST", POST)}) == 1


async def test_behind_a_proxy_that_lost_it(legacy: LegacyFacilitator, horde: Session) -> None:
    legacy.faults[POST].append(httpx.Response(502))
    await horde.create(order())
    assert len(legacy.sent("POST", POST)) == 2
    legacy.faults[POST].extend([httpx.Response(502)] * 9)
    with pytest.raises(ComputeHordeError) as caught:
        await horde.create(order())
    assert caught.value.code == "creation_unknown"
    legacy.faults[POST].clear()
    legacy.faults[POST].append(httpx.Response(504))  # may still be at it
    with pytest.raises(ComputeHordeError) as caught:
        await horde.create(order())
    assert caught.value.code == "creation_unknown"
    assert len(legacy.jobs) == 1


async def test_looks_of_many_waiters_share_requests(legacy: LegacyFacilitator, horde: Session) -> None:
    made = [await horde.create(order(str(number))) for number in range(400)]
    found = await asyncio.gather(*(horde.look(one.uuid) for one in made))
    assert [one.docker_image for one in found] == [str(number) for number in range(400)]
    assert len(legacy.sent("GET", JOBS)) == 3
    assert all(len(str(request.url)) < 8000 for request in legacy.sent("GET", JOBS))


def test_the_body_is_one_that_it_accepts() -> None:
    """Null and missing members that it chokes on are not sent."""

    async def send() -> bytes:
        legacy = LegacyFacilitator()
        horde = session(legacy)
        await horde.create(order())
        await horde.aclose()
        return legacy.sent("POST", POST)[0].content

    body = json.loads(asyncio.run(send()))
    assert body["artifacts_dir"] == ""
    assert "streaming_details" not in body
    assert "tag" not in body

"""``run_until_complete``: when another attempt is made, and when not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from compute_horde.protocol.enums import Fault, JobStatus
from compute_horde.protocol.problems import Problem, is_worth_another_attempt
from compute_horde_sdk._internal.attempts import pause_s, worth_another
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wiring import Wiring
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJob,
    ComputeHordeJobError,
    ComputeHordeJobSpec,
    ComputeHordeJobStatus,
    ComputeHordeJobTimeoutError,
    ComputeHordeResponseError,
    ComputeHordeValidationError,
)

DONE: dict[str, Any] = {"miner_response": {"docker_process_stdout": "out", "docker_process_stderr": ""}}
GONE: dict[str, Any] = {
    "horde_failure_details": {"reported_by": "miner", "reason": "executor_disconnected", "message": "gone"}
}
OWN: dict[str, Any] = {
    "job_failure_details": {"reason": "nonzero_return_code", "stage": "execution", "message": "exit 1"}
}
SPEC = ComputeHordeJobSpec("always_on.test", "SN0", "alpine")


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def client(fake: FakeFacilitator) -> AsyncIterator[ComputeHordeClient]:
    async with fake.client() as made:
        yield made
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Ending:
    """Ends each new job as told: the last one's way for all further ones."""

    def __init__(self, fake: FakeFacilitator, *ends: tuple[str, dict[str, Any]]) -> None:
        self._fake, self._ends = fake, ends
        self.jobs: list[ComputeHordeJob] = []

    def __call__(self, job: ComputeHordeJob) -> None:
        self.jobs.append(job)
        self._fake.advance(job.uuid, *self._ends[min(len(self.jobs), len(self._ends)) - 1])


async def test_the_first_attempt_may_do(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    callback = Ending(fake, ("completed", DONE))
    job = await client.run_until_complete(SPEC, job_attempt_callback=callback)
    assert (job.status, len(callback.jobs), fake.slept) == ("completed", 1, [])
    assert job is callback.jobs[0]


async def test_no_callback_is_needed(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    running = asyncio.create_task(client.run_until_complete(SPEC))
    async with asyncio.timeout(5):
        while not fake.jobs:  # noqa: ASYNC110 - looks at the fake's fields
            await asyncio.sleep(0)
    fake.advance(next(iter(fake.jobs)), "completed", DONE)
    assert (await running).status == "completed"


async def test_failures_of_others_are_made_good(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    callback = Ending(fake, ("horde_failed", GONE), ("rejected", {}), ("completed", DONE))
    job = await client.run_until_complete(SPEC, True, callback)
    assert job is callback.jobs[2]
    assert job.status.is_successful()
    assert all(made.on_trusted_miner for made in callback.jobs)
    assert len({made.uuid for made in callback.jobs}) == 3
    assert fake.slept == [0.2, 0.4]


@pytest.mark.parametrize(("most", "made"), [(3, 3), (1, 1), (0, 12), (-1, 12)])
async def test_the_last_failed_job_is_returned(
    fake: FakeFacilitator, client: ComputeHordeClient, most: int, made: int
) -> None:
    callback = Ending(fake, *[("horde_failed", GONE)] * (made if most > 0 else 11), ("completed", DONE))
    job = await client.run_until_complete(SPEC, job_attempt_callback=callback, max_attempts=most)
    assert (len(callback.jobs), job.status) == (made, "horde_failed" if most > 0 else "completed")


@pytest.mark.parametrize("end", [("failed", OWN), ("cancelled", {})])
async def test_the_users_own_doing_is_not_repeated(
    fake: FakeFacilitator, client: ComputeHordeClient, end: tuple[str, dict[str, Any]]
) -> None:
    callback = Ending(fake, end)
    job = await client.run_until_complete(SPEC, job_attempt_callback=callback)
    assert (job.status, len(callback.jobs)) == (end[0], 1)


async def test_creating_is_not_repeated(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    fake.fail("/api/v1/job-docker/", httpx.Response(400, json={"error": "no"}))
    with pytest.raises(ComputeHordeResponseError):
        await client.run_until_complete(SPEC)
    assert fake.jobs == {}


async def test_one_time_for_all_attempts(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    jobs: list[str] = []

    async def callback(job: ComputeHordeJob) -> None:
        await asyncio.sleep(0)
        jobs.append(job.uuid)
        if len(jobs) == 1:
            fake.advance(job.uuid, "horde_failed", GONE)

    with pytest.raises(ComputeHordeJobTimeoutError, match=r"within 0\.1 s; the last, .*, is sent") as caught:
        await client.run_until_complete(SPEC, job_attempt_callback=callback, timeout=0.1)
    assert len(jobs) == 2
    assert jobs[1] in str(caught.value)


async def test_time_that_runs_out_while_creating() -> None:
    class Slow(FakeFacilitator):
        async def handle(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    async with Slow().client() as client:
        with pytest.raises(ComputeHordeJobTimeoutError, match=r"within 0\.01 s \("):
            await client.run_until_complete(SPEC, timeout=0.01)


async def test_an_exception_of_the_callback_leaves(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    def refuse(job: ComputeHordeJob) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine") as caught:
        await client.run_until_complete(SPEC, job_attempt_callback=refuse, timeout=5)
    assert not isinstance(caught.value, ComputeHordeJobTimeoutError)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("job_spec", {"job_spec": "alpine"}),
        ("timeout", {"timeout": -1}),
        ("timeout", {"timeout": float("nan")}),
        ("max_attempts", {"max_attempts": 1.5}),
        ("max_attempts", {"max_attempts": True}),
    ],
)
async def test_wrong_arguments(
    fake: FakeFacilitator, client: ComputeHordeClient, field: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        await client.run_until_complete(**{"job_spec": SPEC, **changes})
    assert caught.value.field == field
    assert fake.requests == []


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (None, False),
        (ComputeHordeJobError(fault=Fault.USER), False),
        (ComputeHordeJobError(fault=Fault.USER, retryable=True), False),
        (ComputeHordeJobError(fault=Fault.MINER, retryable=True), True),
        (ComputeHordeJobError(fault=Fault.MINER), False),
        (ComputeHordeJobError(fault=Fault.NOBODY, retryable=True), True),
        (ComputeHordeJobError(code="cancelled", fault=Fault.NOBODY, retryable=True), False),
    ],
)
def test_what_is_worth_another_attempt(error: ComputeHordeJobError | None, again: bool) -> None:
    assert worth_another(ComputeHordeJobStatus.FAILED, error) is again


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("status", [one for one in JobStatus if one is not JobStatus.UNKNOWN])
def test_the_rule_is_the_hordes(fault: Fault, retryable: bool, status: JobStatus) -> None:
    problem = Problem(code="some_code", message="", fault=fault, retryable=retryable)
    error = ComputeHordeJobError(code="some_code", fault=fault, retryable=retryable)
    ours = ComputeHordeJobStatus(status.value)
    known = error if ours.is_failed() else None
    assert worth_another(ours, known) is is_worth_another_attempt(problem, status)


def retried(fake: FakeFacilitator, job_uuid: str, attempts: int, of: int) -> None:
    """Every one of the horde's own attempts fails."""
    for number in range(1, attempts + 1):
        if number > 1:
            fake.retry(job_uuid, GONE, number, of)
        fake.advance(job_uuid, "accepted", {"attempt": {"number": number, "of": of, "miner_hotkey": "5M"}})
    fake.advance(job_uuid, "horde_failed", {**GONE, "attempt": {"number": attempts, "of": of}})


@pytest.mark.parametrize(("most", "made"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
async def test_the_attempts_of_the_horde_count(
    fake: FakeFacilitator, client: ComputeHordeClient, most: int, made: int
) -> None:
    jobs: list[ComputeHordeJob] = []

    def callback(job: ComputeHordeJob) -> None:
        jobs.append(job)
        retried(fake, job.uuid, 3, 3)

    job = await client.run_until_complete(SPEC, job_attempt_callback=callback, max_attempts=most)
    assert (len(jobs), job.status) == (made, "horde_failed")
    assert [(one.number, one.outcome) for one in job.attempts_made] == [(n, "horde_failed") for n in (1, 2, 3)]


async def test_what_another_attempt_would_not_help_is_not_repeated(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    problem = {"code": "streaming_unsupported", "message": "no", "fault": "miner", "retryable": False}
    details = {**GONE["horde_failure_details"], "context": {"problem": problem}}
    callback = Ending(fake, ("horde_failed", {"horde_failure_details": details}))
    job = await client.run_until_complete(SPEC, job_attempt_callback=callback)
    assert (job.error and job.error.code, len(callback.jobs)) == ("streaming_unsupported", 1)


def test_pauses_double_to_five_seconds_with_a_tenth_of_chance() -> None:
    without, most = Wiring(jitter=lambda: 0.0), Wiring(jitter=lambda: 1.0)
    assert [pause_s(n, without) for n in (1, 2, 5, 6, 1000)] == [0.2, 0.4, 3.2, 5.0, 5.0]
    assert pause_s(9, most) == pytest.approx(5.5)

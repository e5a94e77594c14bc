"""The synchronous client over a facilitator without sockets."""

import asyncio
import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from compute_horde_sdk._internal.job import ComputeHordeJob as AsyncJob
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1.sync import (
    ComputeHordeClient,
    ComputeHordeConnectionError,
    ComputeHordeJob,
    ComputeHordeJobSpec,
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    ComputeHordeJobTimeoutError,
    ComputeHordeNotFoundError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
    QueuePlace,
)

FAST: dict[str, Any] = {"poll_first_s": 0.001, "poll_cap_s": 0.004}


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
def client(fake: FakeFacilitator) -> Iterator[ComputeHordeClient]:
    with ComputeHordeClient._over(fake.client(**FAST)) as made:
        yield made


def submit(client: ComputeHordeClient) -> ComputeHordeJob:
    return client.create_job("always_on.test", "SN0", "alpine")


def do(client: ComputeHordeClient, act: Callable[[], object]) -> None:
    """The fake lives in the client's loop: what a test does to it happens there."""

    async def acting() -> None:
        act()

    client._portal.call(acting())


def end(client: ComputeHordeClient, fake: FakeFacilitator, job: ComputeHordeJob) -> None:
    do(client, lambda: fake.advance(job.uuid, "failed"))


def test_a_script_runs_a_job(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    job = client.create_job(ComputeHordeJobSpec("always_on.test", "SN0", "alpine"))
    assert job.status.is_in_progress()
    end(client, fake, job)
    job.wait(timeout=5)
    assert job.status is ComputeHordeJobStatus.FAILED
    assert job.error is not None
    assert job.uuid in repr(job)
    assert client.get_job(job.uuid).status is ComputeHordeJobStatus.FAILED
    assert fake.logins == 1


async def test_a_notebooks_cell_runs_a_job_while_its_loop_is_running(fake: FakeFacilitator) -> None:
    assert asyncio.get_running_loop().is_running()
    with ComputeHordeClient._over(fake.client(**FAST)) as client:
        job = submit(client)
        end(client, fake, job)
        job.wait(timeout=5)
        assert job.status.is_failed()


def test_several_threads_share_a_client_and_its_login(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: submit(client), range(8)))
        waits = [pool.submit(job.wait, 10) for job in jobs]
        for job in jobs:
            end(client, fake, job)
        assert [one.result() for one in waits] == [None] * 8
    assert all(job.status.is_failed() for job in jobs)
    assert fake.logins == 1


def test_jobs_come_one_at_a_time(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    made = [submit(client).uuid for _ in range(12)]
    seen = len(fake.requests)
    jobs = client.iter_jobs()
    assert len(fake.requests) == seen
    assert next(jobs).uuid == made[-1]
    assert len(fake.requests) < seen + 3
    assert [job.uuid for job in jobs] == made[-2::-1]
    assert [job.uuid for job in client.get_jobs(page=2, page_size=5)] == made[-6:-11:-1]


def test_breaking_off_leaves_nothing_running(client: ComputeHordeClient) -> None:
    submit(client)
    for _ in client.iter_jobs():
        break

    async def tasks() -> int:
        return len([task for task in asyncio.all_tasks() if "pump" in repr(task)])

    assert client._portal.call(tasks()) == 0


def test_a_dropped_client_lives_on_while_its_jobs_are_iterated(fake: FakeFacilitator) -> None:
    def jobs() -> Iterator[ComputeHordeJob]:
        client = ComputeHordeClient._over(fake.client(**FAST))
        submit(client)
        return client.iter_jobs()

    iterated = jobs()
    gc.collect()
    job = next(iterated)
    gc.collect()
    job.refresh_from_facilitator()
    job._client.close()


def test_errors_are_those_of_the_asynchronous_client(client: ComputeHordeClient) -> None:
    with pytest.raises(ComputeHordeNotFoundError):
        client.get_job("00000000-0000-0000-0000-000000000000")
    with pytest.raises(ComputeHordeValidationError, match="docker_image"):
        client.create_job("always_on.test", "SN0", 3)  # type: ignore[call-overload] # the mistake
    job = submit(client)
    with pytest.raises(ComputeHordeJobTimeoutError) as caught:
        job.wait(timeout=0)
    assert job.uuid in str(caught.value)


def test_arguments_are_checked_when_the_client_is_made(fake: FakeFacilitator) -> None:
    with pytest.raises(ComputeHordeValidationError, match="hotkey"):
        ComputeHordeClient("no key", "validator")  # type: ignore[arg-type] # the mistake
    client = ComputeHordeClient(fake.hotkey, "validator", "queue", "http://horde.test/api/v1")
    assert client.job_queue == "queue"
    assert client.facilitator_url == "http://horde.test/"
    assert client.compute_horde_validator_hotkey == "validator"
    assert client.hotkey is fake.hotkey
    client.close()


def test_use_after_close_and_double_close(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    job = submit(client)
    jobs = client.iter_jobs()
    client.close()
    client.aclose()
    for attempt in (lambda: submit(client), job.wait, job.refresh_from_facilitator, lambda: next(jobs)):
        with pytest.raises(ComputeHordeConnectionError) as caught:
            attempt()
        assert caught.value.code == "client_closed"
    assert job.status is ComputeHordeJobStatus.SENT
    assert fake.open_streams == 0


def test_closing_ends_a_wait_in_another_thread(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    job = submit(client)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.wait)
        until(lambda: fake.open_streams)
        client.close()
        with pytest.raises(ComputeHordeConnectionError) as caught:
            waiting.result()
    assert caught.value.code == "client_closed"
    assert fake.open_streams == 0


def test_ctrl_c_ends_a_wait_and_the_client_goes_on(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    job = submit(client)

    def interrupt(last_id: str) -> None:
        fake.on_stream = lambda last_id: None  # once
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    fake.on_stream = interrupt
    with pytest.raises(KeyboardInterrupt):
        job.wait()
    end(client, fake, job)
    job.refresh_from_facilitator()
    assert job.status.is_failed()


def test_a_dropped_client_is_closed(fake: FakeFacilitator) -> None:
    client = ComputeHordeClient._over(fake.client(**FAST))
    submit(client)
    thread, gone = client._portal._thread, weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert thread is not None
    thread.join(5)
    assert not thread.is_alive()


def test_a_job_keeps_its_client(fake: FakeFacilitator) -> None:
    job = submit(ComputeHordeClient._over(fake.client(**FAST)))
    gc.collect()
    job.refresh_from_facilitator()
    job._client.close()


def test_a_callback_gets_the_same_job_in_the_clients_thread(
    client: ComputeHordeClient, fake: FakeFacilitator
) -> None:
    job = submit(client)
    end(client, fake, job)
    told: list[tuple[ComputeHordeJob, ComputeHordeJobStatus, bool]] = []

    def note(given: ComputeHordeJob, entry: ComputeHordeJobStatusEntry) -> None:
        told.append((given, entry.status, threading.current_thread() is client._portal._thread))

    job.wait(5, note)
    assert told == [(job, ComputeHordeJobStatus.SENT, True), (job, ComputeHordeJobStatus.FAILED, True)]


def test_what_a_callback_raises_comes_out_of_the_call(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    job = submit(client)

    def call_back(given: ComputeHordeJob, entry: ComputeHordeJobStatusEntry) -> None:
        given.refresh_from_facilitator()

    with pytest.raises(ComputeHordeUnsupportedError) as caught:
        job.wait(5, call_back)
    assert caught.value.code == "sync_call_in_callback"

    def leave(given: ComputeHordeJob, entry: ComputeHordeJobStatusEntry) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        job.wait(5, leave)
    job.refresh_from_facilitator()


def test_many_jobs_are_mapped(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    specs = (ComputeHordeJobSpec("always_on.test", "SN0", image) for image in ("alpine", "busybox"))
    with pytest.raises(ComputeHordeValidationError, match="concurrency"):
        client.map_jobs(specs, concurrency=0)
    fake.fail("/api/v1/job-docker/", httpx.Response(400, json={"docker_image": ["no such image"]}))
    mapped = list(client.map_jobs(specs, concurrency=1, timeout=0.05))
    assert [one.index for one in mapped] == [0, 1]
    assert mapped[0].job is None
    assert mapped[0].result is None
    assert isinstance(mapped[1].job, ComputeHordeJob)
    assert isinstance(mapped[1].error, ComputeHordeJobTimeoutError)


def test_attempts_are_told_of(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    told: list[ComputeHordeJob] = []

    def note(job: ComputeHordeJob) -> None:
        told.append(job)
        fake.advance(job.uuid, "completed")

    job = client.run_until_complete(ComputeHordeJobSpec("always_on.test", "SN0", "alpine"), False, note, timeout=5)
    assert told == [job]
    assert job.status.is_successful()


def test_output_is_followed_line_by_line(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    job = submit(client)
    do(client, lambda: fake.print(job.uuid, "stdout", "one\ntwo\n"))
    lines = job.logs(follow=True)
    assert [next(lines).text, next(lines).text] == ["one", "two"]
    end(client, fake, job)
    assert list(lines) == []


def test_every_property_is_the_asynchronous_ones(client: ComputeHordeClient) -> None:
    job = submit(client)
    for twin, original in ((job, job._job), (client, client._client)):
        names = {name for name in dir(type(twin)) if isinstance(getattr(type(twin), name), property)}
        assert names >= {"job_queue"}
        assert all(getattr(twin, name) == getattr(original, name) for name in names)
    assert repr(client) == repr(client._client)
    assert job._repr_html_() == job._job._repr_html_()


def test_cancelling(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    job = submit(client)
    job.cancel()
    assert [request.url.path for request in fake.requests if request.url.path.endswith("/cancel/")]


def test_waiting_and_explaining(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    job = submit(client)
    gone = {
        "horde_failure_details": {"reported_by": "miner", "reason": "executor_disconnected", "message": "gone"}
    }
    do(client, lambda: fake.retry(job.uuid, gone, 2))
    job.refresh_from_facilitator()
    places: list[QueuePlace] = []

    def placed(moved: ComputeHordeJob, place: QueuePlace) -> None:
        assert moved is job
        places.append(place)
        fake.advance(job.uuid, "failed")

    job.wait(queue_callback=placed)
    assert (places, job.queue, job.attempt) == ([QueuePlace(1, 1, 1.0)], None, 2)
    assert [one.outcome for one in job.attempts_made] == ["horde_failed", "failed"]
    assert str(job.explain()) == "The job is failed."


def test_twins_are_kept_as_long_as_they_are_used(client: ComputeHordeClient) -> None:
    job = submit(client)
    assert client._wrap(job._job) is job
    inner: AsyncJob = job._job
    former = id(job)
    job = submit(client)
    gc.collect()
    assert client._wrap(inner)._job is inner
    assert former
    assert len(client._jobs) <= 2


def test_a_lost_facilitator_is_an_error_of_ours(client: ComputeHordeClient, fake: FakeFacilitator) -> None:
    fake.fail("/auth/nonce", *[httpx.ConnectError("nobody there")] * 30)
    with pytest.raises(ComputeHordeConnectionError):
        client.authenticate()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)

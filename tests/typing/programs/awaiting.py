"""The asynchronous client, as its users' type checkers see it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import assert_type

from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJob,
    ComputeHordeJobError,
    ComputeHordeJobResult,
    ComputeHordeJobSpec,
    ComputeHordeJobStatus,
    ComputeHordeJobStatusEntry,
    ExecutorClass,
    Explanation,
    HTTPInputVolume,
    HTTPOutputVolume,
    InlineInputVolume,
    JobAttempt,
    LogLine,
    MappedJob,
    MinerTrial,
    QueuePlace,
)


class Key:
    ss58_address = "5F"

    def sign(self, data: bytes, /) -> bytes:
        return data


async def flat() -> None:
    async with ComputeHordeClient(Key(), "5V", job_queue="nightly") as client:
        assert_type(client, ComputeHordeClient)
        job = await client.create_job(
            ExecutorClass.always_on__gpu_24gb,
            "SN12.0",
            "alpine",
            ["echo", "hello"],
            {"NAME": "value"},
            artifacts_dir="/artifacts",
            input_volumes={
                "/volume/a": HTTPInputVolume("https://example.com/a"),
                "/volume/b": InlineInputVolume.from_file_contents("b.txt", b"b"),
                "/volume/c": Path("folder"),
            },
            output_volumes={"/output/o": HTTPOutputVolume("PUT", "https://example.com/o")},
            execution_time_limit_sec=5,
        )
        assert_type(job, ComputeHordeJob)
        await job.wait(timeout=1.5)
        assert_type(job.status, ComputeHordeJobStatus)
        assert_type(job.status_history, list[ComputeHordeJobStatusEntry])
        assert_type(job.result, ComputeHordeJobResult | None)
        assert_type(job.error, ComputeHordeJobError | None)
        if job.result is not None:
            assert_type(job.result.stdout, str)
            assert_type(job.result.artifacts, dict[str, bytes])
            assert_type(job.result.exit_code, int | None)
            assert_type(job.result.save_artifacts("folder"), list[Path])


def spec() -> ComputeHordeJobSpec:
    return ComputeHordeJobSpec(ExecutorClass.always_on__gpu_24gb, "SN12.0", "alpine", args=["echo"])


async def by_spec(client: ComputeHordeClient) -> None:
    async def told(job: ComputeHordeJob) -> None:
        assert_type(job.uuid, str)

    def noted(job: ComputeHordeJob, entry: ComputeHordeJobStatusEntry) -> None:
        assert_type(entry.status, ComputeHordeJobStatus)

    job = await client.create_job(spec(), on_trusted_miner=True)
    await job.wait(status_callback=noted)
    assert_type(await client.run_until_complete(spec(), job_attempt_callback=told), ComputeHordeJob)
    assert_type(await client.run_until_complete(job_spec=spec(), timeout=3, max_attempts=2), ComputeHordeJob)
    assert_type(await client.report_cheated_job(job.uuid, job.uuid, details={"why": ["this"]}), str)
    await job.cancel()


async def iterated(client: ComputeHordeClient) -> None:
    assert_type(client.iter_jobs(pending=True), AsyncIterator[ComputeHordeJob])
    assert_type(await client.get_jobs(page=2), list[ComputeHordeJob])
    async for job in client.iter_jobs():
        async for line in job.logs(follow=True):
            assert_type(line, LogLine)
            assert_type(line.text, str)
    async for mapped in client.map_jobs([spec()], concurrency=3):
        assert_type(mapped, MappedJob)
        assert_type(mapped.job, ComputeHordeJob | None)


async def queued(client: ComputeHordeClient) -> None:
    def placed(job: ComputeHordeJob, place: QueuePlace) -> None:
        assert_type(place.position, int | None)
        assert_type(place.starts_in, float | None)

    wishes = ComputeHordeJobSpec("always_on.test", None, "alpine", queue_time_limit_sec=60, attempts=2, priority=1)
    await client.create_job(wishes)
    job = await client.create_job("always_on.test", None, "alpine", queue_time_limit_sec=0, retry_backoff_sec=0.5)
    await job.wait(queue_callback=placed)
    assert_type(job.queue, QueuePlace | None)
    assert_type(job.attempt, int)
    assert_type(job.attempts, int | None)
    assert_type(job.attempts_made, list[JobAttempt])
    for attempt in job.attempts_made:
        assert_type(attempt.outcome, ComputeHordeJobStatus | None)
        assert_type(attempt.error, ComputeHordeJobError | None)
    explanation = await job.explain()
    assert_type(explanation, Explanation)
    assert_type(explanation.miners, tuple[MinerTrial, ...])

"""Cross-validation against a real trusted miner: verdicts, evidence, reports, and another process."""

import asyncio
import hashlib
import sqlite3
from dataclasses import replace

from compute_horde.stack.fileserver import FileServer
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJob,
    ComputeHordeJobSpec,
    ComputeHordeJobStatus,
    CrossValidation,
    CrossValidationState,
    HTTPOutputVolume,
    ignoring,
    numeric,
)

from .conftest import RunningHorde, client_of, in_another_process

STEADY = "echo printed; echo data > /artifacts/a.txt; echo out > /output/o.txt"
UNSTEADY = "cat /proc/sys/kernel/random/uuid > /artifacts/luck.txt; echo steady > /artifacts/a.txt"

JUDGED_ELSEWHERE = """
async def work(client):
    job = await client.get_job(given["job"])
    before = job.cross_validation
    report = await job.wait_for_cross_validation(60)
    return [before.state.value, before.trusted_job_uuid, report.state.value, report.evidence.to_json()]
"""


async def job_of(
    client: ComputeHordeClient,
    image: str,
    script: str,
    uploads: str | None = None,
    plan: CrossValidation | None = None,
) -> ComputeHordeJob:
    """A cross-validated job. ``uploads``: where the two runs upload to, as ``/own`` and ``/trusted``."""
    targets = {
        side: {"/output/o.txt": HTTPOutputVolume("PUT", f"{uploads}/{side}")}
        for side in ("own", "trusted")
        if uploads
    }
    spec = ComputeHordeJobSpec(
        "always_on.test",
        "SN0",
        image,
        args=["sh", "-c", script],
        artifacts_dir="/artifacts",
        output_volumes=targets.get("own"),
        trusted_output_volumes=targets.get("trusted"),
        run_cross_validation=True,
        cross_validation=plan,
    )
    return await client.create_job(spec)


def cheats_at_validator(horde: RunningHorde, job_uuid: str) -> tuple[int, int]:
    """Whether the validator marked the job, and how many incidents it counts against its miner."""
    with sqlite3.connect(horde.home / "validator.db") as database:
        (cheated,) = database.execute("SELECT cheated FROM jobs WHERE uuid = ?", (job_uuid,)).fetchone()
        query = "SELECT count(*) FROM incidents WHERE job_uuid = ? AND code = 'job_cheated'"
        (incidents,) = database.execute(query, (job_uuid,)).fetchone()
    database.close()
    return int(cheated), int(incidents)


async def test_two_equal_results_match_here_and_in_another_process(
    horde: RunningHorde, image: str, files: FileServer
) -> None:
    async with client_of(horde) as client:
        job = await job_of(client, image, STEADY, files.url)
        assert job.cross_validation is not None
        assert job.cross_validation.state is CrossValidationState.PENDING
        await job.wait(60)
        report = await job.wait_for_cross_validation(60)
        assert job.cross_validation == report
    assert (report.state, report.reported) == (CrossValidationState.MATCH, False), report.reason
    assert files.uploads == {"/own": b"out\n", "/trusted": b"out\n"}
    evidence = report.evidence
    assert evidence is not None
    for side in (evidence.own, evidence.trusted):
        assert (side.exit_code, side.stdout.sha256) == (0, hashlib.sha256(b"printed\n").hexdigest())
        assert side.artifacts["/artifacts/a.txt"] == (hashlib.sha256(b"data\n").hexdigest(), 5)
        assert side.outputs == {"/output/o.txt": hashlib.sha256(b"out\n").hexdigest()}
    assert evidence.own.image_digest == evidence.trusted.image_digest != None  # noqa: E711 - both tell one
    before, trusted, after, seen = await in_another_process(horde, JUDGED_ELSEWHERE, job=job.uuid)
    assert (before, trusted, after) == ("pending", report.trusted_job_uuid, "match")
    assert seen["own"]["outputs"] == dict(evidence.own.outputs or {})


async def test_the_repetition_uploads_nothing_unless_told_where(horde: RunningHorde, image: str) -> None:
    with FileServer({}) as files:
        async with client_of(horde) as client:
            targets = {"/output/o.txt": HTTPOutputVolume("PUT", files.url + "/own")}
            job = await client.create_job(
                "always_on.test",
                "SN0",
                image,
                ["sh", "-c", STEADY],
                artifacts_dir="/artifacts",
                output_volumes=targets,
                run_cross_validation=True,
            )
            report = await job.wait_for_cross_validation(60)
        assert report.state is CrossValidationState.MATCH, report.reason
        assert files.uploads == {"/own": b"out\n"}


async def test_a_mismatch_is_reported_to_the_validator_unless_told_not_to(horde: RunningHorde, image: str) -> None:
    async with client_of(horde) as client:
        loud = await job_of(client, image, UNSTEADY)
        quiet = await job_of(client, image, UNSTEADY, plan=CrossValidation(report=False))
        reports = await asyncio.gather(*(job.wait_for_cross_validation(60) for job in (loud, quiet)))
        states = [(report.state, report.reported) for report in reports]
        mismatch = CrossValidationState.MISMATCH
        assert states == [(mismatch, True), (mismatch, False)], reports
        evidence = reports[0].evidence
        assert evidence is not None
        assert [difference.path for difference in evidence.differences] == ["/artifacts/luck.txt"]
        again = await (await client.get_job(loud.uuid)).wait_for_cross_validation(60)
        assert (again.state, again.reported, again.report_error) == (mismatch, True, None)
    for _ in range(100):
        if cheats_at_validator(horde, loud.uuid) == (1, 1):
            break
        await asyncio.sleep(0.05)
    assert cheats_at_validator(horde, loud.uuid) == (1, 1)
    assert cheats_at_validator(horde, quiet.uuid) == (0, 0)


async def test_comparators_decide_what_counts(horde: RunningHorde, image: str) -> None:
    almost = "echo 1.000$(( $(date +%N) % 9 )) > /artifacts/n.csv"
    async with client_of(horde) as client:
        leaving_out = CrossValidation(comparator=ignoring("*/luck.txt"))
        own_rule = CrossValidation(comparator=lambda own, other: own.artifacts.keys() == other.artifacts.keys())
        jobs = [
            await job_of(client, image, UNSTEADY, plan=leaving_out),
            await job_of(client, image, UNSTEADY, plan=own_rule),
            await job_of(client, image, almost, plan=CrossValidation(comparator=numeric(rtol=0.01))),
        ]
        reports = await asyncio.gather(*(job.wait_for_cross_validation(60) for job in jobs))
    assert [report.state for report in reports] == [CrossValidationState.MATCH] * 3, reports


async def test_a_failure_of_the_trusted_run_accuses_nobody(horde: RunningHorde, image: str) -> None:
    with FileServer({}) as files:
        async with client_of(horde) as client:
            job = await client.create_job(
                "always_on.test",
                "SN0",
                image,
                ["sh", "-c", STEADY],
                artifacts_dir="/artifacts",
                output_volumes={"/output/o.txt": HTTPOutputVolume("PUT", files.url + "/own")},
                trusted_output_volumes={"/output/o.txt": HTTPOutputVolume("PUT", "http://127.0.0.1:1/trusted")},
                run_cross_validation=True,
                upload_time_limit_sec=5,
            )
            await job.wait(60)
            report = await job.wait_for_cross_validation(60)
    assert job.status is ComputeHordeJobStatus.COMPLETED
    assert (report.state, report.reported) == (CrossValidationState.INCONCLUSIVE, False)
    assert "trusted miner" in report.reason
    assert cheats_at_validator(horde, job.uuid) == (0, 0)


async def test_a_rate_repeats_a_sample(horde: RunningHorde, image: str) -> None:
    async with client_of(horde, cross_validation=CrossValidation(rate=0.5)) as client:
        lots = iter((0.4, 0.6))
        vars(client)["_wiring"] = replace(client._wiring, sample=lambda: next(lots))
        jobs = [await client.create_job("always_on.test", "SN0", image, ["echo", "x"]) for _ in range(2)]
        await asyncio.gather(*(job.wait(60) for job in jobs))
        assert [job.cross_validation is not None for job in jobs] == [True, False]
        report = await jobs[0].wait_for_cross_validation(60)
        assert report.state is CrossValidationState.MATCH, report.reason
        plan = CrossValidation(rate=0.0)  # the job's wins over the client's
        spec = ComputeHordeJobSpec("always_on.test", "SN0", image, args=["true"], cross_validation=plan)
        vars(client)["_wiring"] = replace(client._wiring, sample=lambda: 0.0)
        never = await client.create_job(spec)
        await never.wait(60)
        assert never.cross_validation is None

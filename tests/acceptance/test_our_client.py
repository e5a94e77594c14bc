"""Our client against a whole horde: results, every kind of failure, whose fault it is, and restarts."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair

from compute_horde.stack.fileserver import FileServer
from compute_horde_sdk.v1 import (
    ComputeHordeAuthenticationError,
    ComputeHordeClient,
    ComputeHordeJob,
    ComputeHordeJobStatus,
    ComputeHordeNotFoundError,
    ComputeHordeValidatorNotConnectedError,
    HTTPInputVolume,
    HTTPOutputVolume,
    InlineInputVolume,
)

from .conftest import RunningHorde, client_of, running, user_of

TEST_CLASS = "always_on.test"
SCRIPT = (
    "cat /volume/note/note.txt; awk '{s+=$1} END {print s}' /volume/numbers.txt | tee /artifacts/sum.txt; "
    "cp /artifacts/sum.txt /output/sum.txt; echo oops >&2"
)


async def run_job(horde: RunningHorde, image: str, *args: str, **options: Any) -> ComputeHordeJob:
    async with client_of(horde) as client:
        job = await client.create_job(TEST_CLASS, "SN0", image, list(args), **options)
        await job.wait(timeout=60)
        return job


async def test_a_job_with_inputs_artifact_and_upload(horde: RunningHorde, image: str, files: FileServer) -> None:
    job = await run_job(
        horde,
        image,
        "sh",
        "-c",
        SCRIPT,
        artifacts_dir="/artifacts",
        input_volumes={
            "/volume/note": InlineInputVolume.from_file_contents("note.txt", b"hello\n"),
            "/volume/numbers.txt": HTTPInputVolume(url=files.url + "/numbers.txt"),
        },
        output_volumes={"/output/sum.txt": HTTPOutputVolume(http_method="PUT", url=files.url + "/sum")},
    )
    assert job.status is ComputeHordeJobStatus.COMPLETED
    assert job.result is not None
    assert job.result.stdout == "hello\n12\n"
    assert job.result.stderr == "oops\n"
    assert job.result.artifacts == {"/artifacts/sum.txt": b"12\n"}
    assert list(job.result.upload_results) == ["/output/sum.txt"]
    assert files.uploads == {"/sum": b"12\n"}
    assert [entry.status.value for entry in job.status_history] == [
        "sent",
        "received",
        "accepted",
        "executor_ready",
        "volumes_ready",
        "execution_done",
        "completed",
    ]


async def test_jobs_are_found_again_newest_first(horde: RunningHorde, image: str) -> None:
    async with client_of(horde) as client:
        first = await client.create_job(TEST_CLASS, "SN0", image, ["true"])
        second = await client.create_job(TEST_CLASS, "SN0", image, ["true"])
        await asyncio.gather(first.wait(60), second.wait(60))
        found = await client.get_job(first.uuid)
        assert found.status is ComputeHordeJobStatus.COMPLETED
        listed = [job.uuid async for job in client.iter_jobs()]
    assert listed.index(second.uuid) < listed.index(first.uuid)
    assert len(listed) == len(set(listed))


async def test_the_trusted_miner_runs_jobs_too(horde: RunningHorde, image: str) -> None:
    job = await run_job(horde, image, "echo", "trusted", on_trusted_miner=True)
    assert job.result is not None
    assert (job.status.value, job.result.stdout) == ("completed", "trusted\n")


@pytest.mark.parametrize(
    ("args", "code", "exit_code"),
    [
        (("sh", "-c", "echo out; echo err >&2; exit 7"), "nonzero_exit", 7),
        (("no-such-program",), "container_start_failed", None),
    ],
)
async def test_a_jobs_own_failure_is_the_users(
    horde: RunningHorde, image: str, args: tuple[str, ...], code: str, exit_code: int | None
) -> None:
    job = await run_job(horde, image, *args)
    assert job.status is ComputeHordeJobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.fault, job.error.stage) == (code, "user", "execution")
    assert job.error.hint
    assert job.result is not None
    if exit_code is not None:
        assert (job.result.exit_code, job.result.stdout, job.result.stderr) == (exit_code, "out\n", "err\n")


async def test_an_unknown_image_is_the_users_fault(horde: RunningHorde) -> None:
    job = await run_job(horde, "127.0.0.1:1/no/such-image:1", "true")
    assert job.error is not None
    assert job.status in (ComputeHordeJobStatus.FAILED, ComputeHordeJobStatus.HORDE_FAILED)
    assert job.error.code in ("image_not_found", "image_pull_failed")
    assert job.error.fault != "miner"


async def test_a_404_input_is_the_users_fault(horde: RunningHorde, image: str, files: FileServer) -> None:
    job = await run_job(
        horde, image, "true", input_volumes={"/volume/x": HTTPInputVolume(url=files.url + "/missing")}
    )
    assert job.error is not None
    assert (job.status.value, job.error.code, job.error.fault) == ("failed", "download_http_error", "user")


async def test_past_its_limit_a_job_is_stopped_and_keeps_what_it_wrote(horde: RunningHorde, image: str) -> None:
    job = await run_job(
        horde,
        image,
        "sh",
        "-c",
        "echo begun; echo half > /artifacts/half.txt; sleep 60",
        artifacts_dir="/artifacts",
        execution_time_limit_sec=1,
    )
    assert job.status is ComputeHordeJobStatus.COMPLETED
    assert job.result is not None
    assert job.result.timed_out
    assert job.result.stdout == "begun\n"
    assert "time limit" in job.result.stderr
    assert job.result.artifacts == {"/artifacts/half.txt": b"half\n"}


async def test_a_hotkey_that_is_not_allowed_is_told_so(horde: RunningHorde, image: str) -> None:
    stranger: Any = Keypair.create_from_uri("//Stranger")
    async with ComputeHordeClient(
        stranger, horde.info["validator_hotkey"], facilitator_url=horde.info["facilitator_url"]
    ) as client:
        with pytest.raises(ComputeHordeAuthenticationError, match="not allowed"):
            await client.create_job(TEST_CLASS, "SN0", image)


async def test_a_validator_that_is_not_connected_is_told(horde: RunningHorde, image: str) -> None:
    other = Keypair.create_from_uri("//Nobody").ss58_address
    async with ComputeHordeClient(user_of(horde), other, facilitator_url=horde.info["facilitator_url"]) as client:
        with pytest.raises(ComputeHordeValidatorNotConnectedError):
            await client.create_job(TEST_CLASS, "SN0", image)


async def test_more_jobs_than_executors_are_rejected_as_busy_if_they_do_not_wait(
    horde: RunningHorde, image: str
) -> None:
    async with client_of(horde) as client:
        jobs = [
            await client.create_job(TEST_CLASS, "SN0", image, ["sleep", "3"], queue_time_limit_sec=0)
            for _ in range(6)
        ]
        await asyncio.gather(*(job.wait(60) for job in jobs))
        outcomes = sorted(job.status.value for job in jobs)
        assert outcomes == ["completed"] * 4 + ["rejected"] * 2
        rejected = next(job for job in jobs if job.status is ComputeHordeJobStatus.REJECTED)
        assert rejected.error is not None
        assert rejected.error.reason == "busy"
    after = await run_job(horde, image, "true")
    assert after.status is ComputeHordeJobStatus.COMPLETED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_started_again_it_goes_on_with_what_it_had(
    tmp_path: Path, image: str, number: signal.Signals
) -> None:
    home = tmp_path / "home"
    with running(home) as horde:
        job = await run_job(horde, image, "echo", "kept")
        async with client_of(horde) as client:
            cut = await client.create_job(TEST_CLASS, "SN0", image, ["sh", "-c", "sleep 8; echo done"])
            while (await client.get_job(cut.uuid)).status is not ComputeHordeJobStatus.VOLUMES_READY:  # noqa: ASYNC110 - a user looks from outside
                await asyncio.sleep(0.05)
        ended = horde.stop(number)
        assert ended == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    with running(home) as again:
        assert again.info["validator_hotkey"] == horde.info["validator_hotkey"]
        async with client_of(again) as client:
            found = await client.get_job(job.uuid)
            assert found.result is not None
            assert found.result.stdout == "kept\n"
            goes_on = await client.get_job(cut.uuid)
            await goes_on.wait(timeout=60)
            assert (goes_on.status, goes_on.attempt) == (ComputeHordeJobStatus.COMPLETED, 1)
            assert goes_on.result is not None
            assert goes_on.result.stdout == "done\n"
        assert (await run_job(again, image, "true")).status is ComputeHordeJobStatus.COMPLETED


async def test_another_users_job_is_not_found(horde: RunningHorde, image: str, tmp_path: Path) -> None:
    mine = await run_job(horde, image, "true")
    chain = horde.home / "chain.toml"
    other: Any = Keypair.create_from_uri("//Other")
    # the chain file is re-read when it changes: let the other user in
    chain.write_text(chain.read_text().replace("users = [", f'users = ["{other.ss58_address}", '))
    async with ComputeHordeClient(
        other, horde.info["validator_hotkey"], facilitator_url=horde.info["facilitator_url"]
    ) as client:
        with pytest.raises(ComputeHordeNotFoundError):
            await client.get_job(mine.uuid)
        assert [job async for job in client.iter_jobs()] == []


def test_the_example_runs_as_printed(horde: RunningHorde, image: str, tmp_path: Path) -> None:
    announcement = tmp_path / "horde.json"
    announcement.write_text(json.dumps(horde.info))
    example = Path(__file__).parents[2] / "examples" / "count_words.py"
    done = subprocess.run(
        [sys.executable, example, announcement, image], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "words: 12\nartifact: 12\n"), done.stderr

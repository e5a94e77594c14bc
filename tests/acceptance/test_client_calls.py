"""Both call styles, errors, many jobs, the synchronous client and a notebook, against a real horde."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from compute_horde_sdk._internal.wiring import Wiring
from compute_horde_sdk.v1 import (
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeJob,
    ComputeHordeJobFailure,
    ComputeHordeJobSpec,
    ComputeHordeJobStatus,
    ComputeHordeJobTimeoutError,
    ComputeHordeNotFoundError,
    ComputeHordeValidationError,
    ExecutorClass,
    HTTPInputVolume,
    sync,
)

from .conftest import RunningHorde, client_of, facilitator_of, in_another_process, user_of
from .proxy import proxy_of

TEST_CLASS = "always_on.test"


def spec_of(image: str, script: str, **options: Any) -> ComputeHordeJobSpec:
    return ComputeHordeJobSpec(
        ExecutorClass.always_on__test, "SN0.calls", image, args=["sh", "-c", script], **options
    )


async def test_both_call_styles_make_the_same_job(horde: RunningHorde, image: str) -> None:
    env = {"WORD": "both"}
    async with client_of(horde) as client:
        flat = await client.create_job(TEST_CLASS, "SN0.calls", image, ["sh", "-c", "echo $WORD"], env)
        whole = await client.create_job(spec_of(image, "echo $WORD", env=env), on_trusted_miner=True)
        await asyncio.gather(flat.wait(60), whole.wait(60))
        assert [job.uuid for job in await client.get_jobs(page_size=2)] == [whole.uuid, flat.uuid]
    for job in (flat, whole):
        assert job.result is not None
        assert (job.status.value, job.result.stdout, job.error) == ("completed", "both\n", None)
        assert (job.executor_class, job.job_namespace, job.docker_image) == (TEST_CLASS, "SN0.calls", image)
    assert (flat.on_trusted_miner, whole.on_trusted_miner) == (False, True)


async def test_a_callback_hears_each_entry_of_the_history_once(horde: RunningHorde, image: str) -> None:
    told = []
    async with client_of(horde) as client:
        job = await client.create_job(spec_of(image, "true"))
        await job.wait(60, status_callback=lambda _, entry: told.append(entry))
    assert told == job.status_history
    assert [entry.status.value for entry in told][-1] == "completed"


async def test_run_until_complete_does_not_repeat_the_users_own_failure(horde: RunningHorde, image: str) -> None:
    attempts: list[ComputeHordeJob] = []
    async with client_of(horde) as client:
        job = await client.run_until_complete(spec_of(image, "exit 3"), job_attempt_callback=attempts.append)
    assert attempts == [job]
    assert (job.status.value, job.error and job.error.exit_code) == ("failed", 3)


async def test_run_until_complete_tries_again_while_the_horde_is_busy(horde: RunningHorde, image: str) -> None:
    attempts: list[str] = []
    async with client_of(horde) as client:
        others = [await client.create_job(spec_of(image, "sleep 2")) for _ in range(4)]
        job = await client.run_until_complete(
            spec_of(image, "echo mine", queue_time_limit_sec=0),
            job_attempt_callback=lambda made: attempts.append(made.uuid),
            timeout=60,
            max_attempts=0,
        )
        await asyncio.gather(*(other.wait(60) for other in others))
    assert job.status is ComputeHordeJobStatus.COMPLETED
    assert len(attempts) > 1
    assert attempts[-1] == job.uuid


async def test_many_jobs_come_back_in_the_order_of_their_ends(horde: RunningHorde, image: str) -> None:
    specs = [spec_of(image, f"sleep {2 if number == 0 else 0}; echo {number}") for number in range(10)]
    async with client_of(horde) as client:
        found = [mapped async for mapped in client.map_jobs(specs, concurrency=4, timeout=60, max_attempts=0)]
    assert sorted(mapped.index for mapped in found) == list(range(10))
    assert found[0].index != 0
    for mapped in found:
        assert mapped.error is None
        assert mapped.result is not None
        assert mapped.result.stdout == f"{mapped.index}\n"


async def test_wrong_arguments_are_named_before_anything_is_sent(horde: RunningHorde, image: str) -> None:
    volume = HTTPInputVolume("http://example.com/x")
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("executor_class", {"executor_class": "no.such-class"}),
        ("docker_image", {"docker_image": ""}),
        ("args[1]", {"args": ["echo", 1]}),
        ("env['A']", {"env": {"A": 1}}),
        ("artifacts_dir", {"artifacts_dir": "relative"}),
        ("input_volumes['/elsewhere']", {"input_volumes": {"/elsewhere": volume}}),
        ("execution_time_limit_sec", {"execution_time_limit_sec": -1}),
    ]
    async with proxy_of(facilitator_of(horde)) as proxy, client_of(horde, proxy.url) as client:
        for field, changed in wrong:
            call: dict[str, Any] = {"executor_class": TEST_CLASS, "job_namespace": "SN0", "docker_image": image}
            with pytest.raises(ComputeHordeValidationError) as caught:
                await client.create_job(**{**call, **changed})
            assert caught.value.field == field
        assert proxy.passed == []


async def test_errors_of_calls_are_of_one_tree(horde: RunningHorde, image: str) -> None:
    async with client_of(horde) as client:
        for job_uuid in ("00000000-0000-4000-8000-000000000000", "no uuid"):
            with pytest.raises(ComputeHordeNotFoundError) as missing:
                await client.get_job(job_uuid)
            assert (missing.value.code, missing.value.retryable) == ("not_found", False)
        job = await client.create_job(spec_of(image, "sleep 2; exit 9"))
        with pytest.raises(ComputeHordeJobTimeoutError) as late:
            await job.wait(timeout=0.2)
        assert late.value.retryable
        await job.wait(60)
        with pytest.raises(ComputeHordeJobFailure) as failed:
            raise job.error or AssertionError("the job has no error")
        assert (failed.value.code, failed.value.fault, failed.value.stage) == ("nonzero_exit", "user", "execution")
        with pytest.raises(ComputeHordeError):
            await client.report_cheated_job(job.uuid, job.uuid)


async def test_a_facilitator_that_is_not_there(horde: RunningHorde) -> None:
    async with client_of(horde, "http://127.0.0.1:1") as client:
        vars(client)["_wiring"] = Wiring(retry_s=0.5)  # the class's waits for a restart of the facilitator
        with pytest.raises(ComputeHordeConnectionError) as away:
            await client.authenticate()
    assert (away.value.retryable, bool(away.value.hint)) == (True, True)


def sync_client(horde: RunningHorde) -> sync.ComputeHordeClient:
    return sync.ComputeHordeClient(
        user_of(horde), horde.info["validator_hotkey"], facilitator_url=facilitator_of(horde)
    )


def run_in_step(client: sync.ComputeHordeClient, image: str) -> tuple[str, list[str], list[int]]:
    """A job's status, what it printed, and the order in which several come back."""
    job = client.create_job(spec_of(image, "echo in; sleep 1; echo step"))
    lines = [line.text for line in job.logs(follow=True)]
    job.wait(timeout=60)
    found = client.map_jobs([spec_of(image, f"exit {code}") for code in range(2)], max_attempts=0)
    return job.status.value, lines, sorted(mapped.index for mapped in found)


def test_the_synchronous_client(horde: RunningHorde, image: str) -> None:
    with sync_client(horde) as client:
        assert run_in_step(client, image) == ("completed", ["in", "step"], [0, 1])


async def test_the_synchronous_client_works_inside_a_running_loop(horde: RunningHorde, image: str) -> None:
    with sync_client(horde) as client:
        assert run_in_step(client, image) == ("completed", ["in", "step"], [0, 1])


PLAIN_SCRIPT = """
import sys
from bittensor_wallet import Wallet
from compute_horde_sdk.v1.sync import ComputeHordeClient

name, hotkey, path, validator, url, image = sys.argv[1:]
client = ComputeHordeClient(Wallet(name, hotkey, path).hotkey, validator, facilitator_url=url)
job = client.create_job("always_on.test", "SN0", image, ["echo", "plain"])
job.wait()
print(job.status.value, job.result.stdout)
"""


def test_the_synchronous_client_in_a_plain_script_that_closes_nothing(horde: RunningHorde, image: str) -> None:
    names = ("wallet_name", "wallet_hotkey", "wallet_path", "validator_hotkey", "facilitator_url")
    command = [sys.executable, "-W", "error", "-c", PLAIN_SCRIPT, *(horde.info[name] for name in names), image]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "completed plain\n\n", "")


async def test_a_notebook_shows_a_job_and_nothing_of_it_is_markup(horde: RunningHorde, image: str) -> None:
    async with client_of(horde) as client:
        job = await client.create_job(spec_of(image, "echo '<b>bold</b>'; exit 4"))
        assert job.uuid in job._repr_html_()
        await job.wait(60)
    shown = job._repr_html_()
    for text in (job.uuid, "failed", "nonzero_exit", "&lt;b&gt;bold&lt;/b&gt;", "SN0.calls"):
        assert text in shown
    assert "<b>" not in shown
    assert "nonzero_exit" in repr(job)


async def test_a_client_leaves_no_socket_open(horde: RunningHorde, image: str) -> None:
    async with proxy_of(facilitator_of(horde)) as proxy:
        async with client_of(horde, proxy.url) as client:
            job = await client.create_job(spec_of(image, "true"))
            await job.wait(60)
            assert proxy.connections
        for _ in range(100):
            if not proxy.connections:
                break
            await asyncio.sleep(0.05)
        assert not proxy.connections


async def test_the_released_style_of_script_runs_as_it_is(horde: RunningHorde, image: str) -> None:
    """The way of writing of SDK 0.0.19, which acceptance runs under that SDK, too."""
    code = """
async def work(client):
    client = ComputeHordeClient(
        hotkey=client.hotkey,
        compute_horde_validator_hotkey=given["validator_hotkey"],
        facilitator_url=given["facilitator_url"],
    )
    spec = ComputeHordeJobSpec(
        executor_class=ExecutorClass.always_on__test, job_namespace="SN0.old", docker_image=given["image"],
        download_time_limit_sec=5, execution_time_limit_sec=5, upload_time_limit_sec=5,
        args=["sh", "-c", "cat /volume/a/x"], artifacts_dir="/artifacts",
        input_volumes={
            "/volume/a": InlineInputVolume.from_file_contents(filename="x", contents=b"old", compress=True),
        },
    )
    job = await client.run_until_complete(spec, on_trusted_miner=False, timeout=60)
    jobs = await client.get_jobs(page=1, page_size=5)
    return [str(job.status), job.status.is_successful(), job.result.stdout, job.uuid in [one.uuid for one in jobs]]
"""
    found = await in_another_process(horde, code, image=image)
    assert found == ["completed", True, "old", True]

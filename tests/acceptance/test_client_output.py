"""Output while a job runs, and cancelling, down to real containers."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJob,
    ComputeHordeJobStatus,
    HTTPInputVolume,
    LogLine,
)

from .conftest import RunningHorde, client_of, in_another_process, reached

SLOWLY = "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.7; done; printf unfinished"
STARTED = ("volumes_ready", "execution_done")


async def shell(client: ComputeHordeClient, image: str, script: str, **options: object) -> ComputeHordeJob:
    return await client.create_job("always_on.test", "SN0", image, ["sh", "-c", script], **options)  # type: ignore[call-overload, no-any-return] # any of its options


async def containers(word: str) -> list[str]:
    """Containers, running or not, whose command holds ``word``."""
    process = await asyncio.create_subprocess_exec(
        "docker", "ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Command}}", stdout=subprocess.PIPE
    )
    found, _ = await process.communicate()
    return [line for line in found.decode().splitlines() if word in line]


async def gone(word: str) -> bool:
    for _ in range(100):
        if not await containers(word):
            return True
        await asyncio.sleep(0.1)
    return False


def texts(lines: list[LogLine], stream: str) -> list[str]:
    return [line.text for line in lines if line.stream == stream]


async def test_lines_arrive_while_the_job_prints_them(horde: RunningHorde, image: str) -> None:
    async with client_of(horde) as client:
        job = await shell(client, image, SLOWLY)
        lines: list[LogLine] = []
        statuses: list[str] = []
        async for line in job.logs(follow=True):
            lines.append(line)
            statuses.append((await client.get_job(job.uuid)).status.value)
        assert statuses[0] in STARTED  # the first line came before the end
        assert statuses[-1] == "completed"  # and the last, which has no line end, with the result
        await job.wait(10)
        whole = [line async for line in job.logs()]
        other = [line async for line in (await client.get_job(job.uuid)).logs(follow=True)]
    for seen in (lines, whole, other):
        assert texts(seen, "stdout") == ["out 1", "out 2", "out 3", "unfinished"]
        assert texts(seen, "stderr") == ["err 1", "err 2", "err 3"]


async def test_two_followers_and_a_look_see_the_same(horde: RunningHorde, image: str) -> None:
    async with client_of(horde) as client, client_of(horde) as other:
        job = await shell(client, image, SLOWLY)
        twin = await other.get_job(job.uuid)

        async def followed(which: ComputeHordeJob) -> list[LogLine]:
            return [line async for line in which.logs(follow=True)]

        async def looked() -> list[LogLine]:
            await reached(twin, *STARTED)
            for _ in range(100):
                if found := [line async for line in twin.logs()]:
                    return found
                await asyncio.sleep(0.05)
            raise AssertionError("nothing to see")

        one, two, glimpse = await asyncio.gather(followed(job), followed(twin), looked())
    assert texts(one, "stdout") == texts(two, "stdout") == ["out 1", "out 2", "out 3", "unfinished"]
    assert texts(glimpse, "stdout")[0] == "out 1"


async def test_much_output_is_complete(horde: RunningHorde, image: str) -> None:
    async with client_of(horde) as client:
        job = await shell(client, image, "seq 1 100000")
        lines = [line async for line in job.logs(follow=True)]
    assert [line.text for line in lines] == [str(number) for number in range(1, 100_001)]


async def test_cancelling_stops_the_container_and_keeps_what_was_printed(
    horde: RunningHorde, image: str, released_client: Path
) -> None:
    async with client_of(horde) as client:
        job = await shell(client, image, "echo begun; echo oops >&2; sleep 317")
        async for line in job.logs(follow=True):
            if line.text == "begun":
                break
        assert await containers("sleep 317")
        await job.cancel()
        await job.cancel()
        await job.wait(30)
        assert job.status is ComputeHordeJobStatus.CANCELLED
        assert job.result is not None
        assert (job.result.stdout, job.result.stderr) == ("begun\n", "oops\n")
        assert job.error is not None
        assert (job.error.code, job.error.fault, job.error.retryable) == ("cancelled", "user", False)
        assert await gone("sleep 317")
        await job.cancel()
        again = await client.get_job(job.uuid)
        assert [entry.status.value for entry in again.status_history].count("cancelled") == 1
        jobs = [await shell(client, image, "sleep 1") for _ in range(4)]  # every executor is free again
        await asyncio.gather(*(one.wait(60) for one in jobs))
        assert [one.status.value for one in jobs] == ["completed"] * 4
    assert await _to_the_released_client(horde, released_client, job.uuid) == ["failed", True]


SEEN_BY_RELEASED = """
async def work(client):
    job = await client.get_job(given["job"])
    return [str(job.status.value), bool(job.error.reason)]
"""


async def _to_the_released_client(horde: RunningHorde, python: Path, job_uuid: str) -> object:
    """The status that SDK 0.0.19 sees, and whether it sees a reason."""
    return await in_another_process(horde, SEEN_BY_RELEASED, python=python, job=job_uuid)


async def test_a_job_is_cancelled_before_its_container_runs(horde: RunningHorde, image: str) -> None:
    held = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        held.set()
        await reader.read()  # until the executor gives up
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    async with server, client_of(horde) as client:
        job = await shell(client, image, "sleep 318", input_volumes={"/volume/x": HTTPInputVolume(url)})
        await asyncio.wait_for(held.wait(), 30)
        await job.cancel()
        await job.wait(30)
        at_once = await shell(client, image, "sleep 319")
        await at_once.cancel()
        await at_once.wait(30)
    for cancelled in (job, at_once):
        assert cancelled.status is ComputeHordeJobStatus.CANCELLED
        assert "execution_done" not in [entry.status.value for entry in cancelled.status_history]
    assert await gone("sleep 318")
    assert await gone("sleep 319")


@pytest.mark.parametrize(("script", "status"), [("echo done", "completed"), ("exit 5", "failed")])
async def test_a_job_that_has_ended_stays_as_it_is(
    horde: RunningHorde, image: str, script: str, status: str
) -> None:
    async with client_of(horde) as client:
        job = await shell(client, image, script)
        stale = await client.get_job(job.uuid)
        await job.wait(60)
        await stale.cancel()  # it does not know yet that the job has ended
        assert (stale.status.value, stale.result) == (status, job.result)

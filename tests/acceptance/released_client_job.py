"""Runs under the released client's Python: logs in, runs one job, finds it again, prints what it saw as JSON."""

import asyncio
import json
import sys

from bittensor_wallet import Wallet

from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJobSpec,
    ComputeHordeNotFoundError,
    ExecutorClass,
    HTTPInputVolume,
    HTTPOutputVolume,
    InlineInputVolume,
)

SCRIPT = (
    "cat /volume/note/note.txt; awk '{s+=$1} END {print s}' /volume/numbers.txt | tee /artifacts/sum.txt; "
    "cp /artifacts/sum.txt /output/sum.txt; echo oops >&2"
)


async def main(order):
    wallet = Wallet(order["wallet_name"], order["wallet_hotkey"], order["wallet_path"])
    client = ComputeHordeClient(
        hotkey=wallet.hotkey,
        compute_horde_validator_hotkey=order["validator_hotkey"],
        facilitator_url=order["facilitator_url"],
    )
    spec = ComputeHordeJobSpec(
        executor_class=ExecutorClass.always_on__test,
        job_namespace="SN0.acceptance",
        docker_image=order["image"],
        download_time_limit_sec=30,
        execution_time_limit_sec=30,
        upload_time_limit_sec=30,
        args=["sh", "-c", SCRIPT],
        artifacts_dir="/artifacts",
        input_volumes={
            "/volume/note": InlineInputVolume.from_file_contents("note.txt", b"hello from inline\n"),
            "/volume/numbers.txt": HTTPInputVolume(url=order["files_url"] + "/numbers.txt"),
        },
        output_volumes={"/output/sum.txt": HTTPOutputVolume(http_method="PUT", url=order["files_url"] + "/sum")},
    )
    job = await client.create_job(spec)
    await job.wait(timeout=60)
    again = await client.get_job(job.uuid)
    listed = [found.uuid async for found in client.iter_jobs()]
    try:
        await client.get_job("00000000-0000-4000-8000-000000000000")
        missing = "found"
    except ComputeHordeNotFoundError:
        missing = "not found"
    without_artifacts = await client.create_job(
        ComputeHordeJobSpec(
            executor_class=ExecutorClass.always_on__test,
            job_namespace="SN0.acceptance",
            docker_image=order["image"],
            download_time_limit_sec=5,
            execution_time_limit_sec=5,
            upload_time_limit_sec=5,
            args=["sh", "-c", "exit 3"],
        )
    )
    await without_artifacts.wait(timeout=60)
    print(
        json.dumps(
            {
                "status": str(job.status.value),
                "stdout": job.result.stdout,
                "stderr": job.result.stderr,
                "artifacts": {path: data.decode() for path, data in job.result.artifacts.items()},
                "uploads": sorted(job.result.upload_results),
                "again": str(again.status.value),
                "listed": job.uuid in listed,
                "missing": missing,
                "failed": [str(without_artifacts.status.value), str(without_artifacts.error.reason)],
            }
        )
    )


asyncio.run(main(json.loads(sys.argv[1])))

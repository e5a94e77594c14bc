"""A no-op job, ``create_job`` to the end of ``wait``, against ``docker run --rm`` of the same image."""

import asyncio
import statistics
import time
from typing import Any

from bittensor_wallet import Wallet

from compute_horde_sdk.v1 import ComputeHordeClient


async def compare(horde: dict[str, Any], image: str, runs: int) -> str:
    """Alternating runs after a warm-up of each; medians and their ratio, as text."""
    hotkey: Any = Wallet(horde["wallet_name"], horde["wallet_hotkey"], horde["wallet_path"]).hotkey
    jobs: list[float] = []
    plain: list[float] = []
    async with ComputeHordeClient(
        hotkey, horde["validator_hotkey"], facilitator_url=horde["facilitator_url"]
    ) as client:
        for counted in [False, False] + [True] * runs:
            job_s, plain_s = await _job(client, image), await _docker_run(image)
            if counted:
                jobs.append(job_s)
                plain.append(plain_s)
    job_median, plain_median = statistics.median(jobs), statistics.median(plain)
    pairs = sorted(job / alone for job, alone in zip(jobs, plain, strict=True))
    return (
        f"no-op job, {runs} alternating runs\n"
        f"  create_job to wait: median {job_median:.3f} s (min {min(jobs):.3f}, max {max(jobs):.3f})\n"
        f"  docker run --rm:    median {plain_median:.3f} s (min {min(plain):.3f}, max {max(plain):.3f})\n"
        f"  ratio of medians:   {job_median / plain_median:.2f} (at most 2.0 promised), "
        f"pair by pair {pairs[0]:.2f} to {pairs[-1]:.2f}"
    )


async def _job(client: ComputeHordeClient, image: str) -> float:
    began = time.perf_counter()
    job = await client.create_job("always_on.test", "bench", image, ["true"])
    await job.wait(60)
    took = time.perf_counter() - began
    if not job.status.is_successful():
        raise SystemExit(f"the job ended as {job.status.value}: {job.error}")
    return took


async def _docker_run(image: str) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec("docker", "run", "--rm", "--network", "none", image, "true")
    if await process.wait() != 0:
        raise SystemExit("docker run failed")
    return time.perf_counter() - began

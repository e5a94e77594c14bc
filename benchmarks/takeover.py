"""``python -m benchmarks.takeover``: how soon a job moves on after its service was killed and started again.

Each service is a process of its own, as in the chaos tests. A job runs, one service is killed with SIGKILL, the
job's container ends meanwhile, the service is started again: from that start to the client's knowledge of the end.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from tests.chaos import engine
from tests.chaos.scenes import COMPUTE, SECONDS, is_up, reached
from tests.chaos.services import Services
from tests.chaos.wires import Loop

from compute_horde.stack.image import small_image
from compute_horde_sdk.v1 import ComputeHordeClient

PROMISED_S = 2.0
SERVICES = ("facilitator", "validator", "miner", "executor")
UNTIL_GO = ["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; echo went"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=5, help="kills of each service")
    runs = options.parse_args().runs
    loop = Loop()
    with tempfile.TemporaryDirectory(prefix="horde-bench-") as folder:
        services = Services(Path(folder), loop, lambda name: f"sqlite:///{folder}/{name}.db")
        try:
            print(asyncio.run(measure(services, runs)))
        finally:
            services.stop()
    loop.close()


async def measure(services: Services, runs: int) -> str:
    """Seconds by service, and the median over all, as text."""
    image = await small_image()
    services.start("facilitator", "miner", "validator")
    keys = services.keys
    took: dict[str, list[float]] = {}
    async with ComputeHordeClient(
        keys["user"], keys["validator"].ss58_address, facilitator_url=services.url
    ) as client:
        await (await is_up(client, image)).wait(60)
        for service in SERVICES:
            took[service] = [await _one(services, client, image, service) for _ in range(runs)]
    lines = [
        f"  {name:<12} median {statistics.median(found):.2f} s, max {max(found):.2f} s"
        for name, found in took.items()
    ]
    whole = statistics.median([seconds for found in took.values() for seconds in found])
    head = f"from the restart after a SIGKILL to the end of the job, {runs} kills each"
    return "\n".join([head, *lines, f"  all          median {whole:.2f} s (under {PROMISED_S:g} s promised)"])


async def _one(services: Services, client: ComputeHordeClient, image: str, service: str) -> float:
    job = await client.create_job(COMPUTE, "bench", image, UNTIL_GO, **SECONDS)
    await reached(job, "volumes_ready")
    await asyncio.to_thread(_container_runs, services, job.uuid)
    if service == "executor":
        services.kill_executors()
    else:
        services.kill(service)
    await asyncio.to_thread(engine.touch, services.executor_id, job.uuid, "/tmp/go")
    began = time.perf_counter()
    if service != "executor":  # the miner starts another by itself
        services.start(service)
    await job.wait(60)
    if not job.status.is_successful():
        raise SystemExit(f"the job ended as {job.status.value}: {job.error}")
    return time.perf_counter() - began


def _container_runs(services: Services, job_uuid: str) -> None:
    while not any(job_uuid in token for token in engine.containers(services.executor_id, "running")):
        time.sleep(0.05)


if __name__ == "__main__":
    main()

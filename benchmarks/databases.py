"""``python -m benchmarks.databases``: a single job on PostgreSQL beside the same on SQLite, in one run.

Two hordes of separate processes, alike but for their databases; no-op jobs by turns. PostgreSQL runs as in
production: every commit waits for the disk.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from tests.chaos.scenes import COMPUTE, SECONDS, is_up
from tests.chaos.services import Services
from tests.chaos.wires import Loop
from tests.postgres import running_postgres

from compute_horde.stack.image import small_image
from compute_horde_sdk.v1 import ComputeHordeClient

PROMISED = 1.3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=20, help="jobs on each database")
    runs = options.parse_args().runs
    loop = Loop()
    with tempfile.TemporaryDirectory(prefix="horde-bench-") as folder, running_postgres(durable=True) as server:
        names = {name: server.fresh() for name in ("facilitator", "validator", "miner")}
        hordes = {
            "SQLite": _horde(Path(folder) / "sqlite", loop, {}),
            "PostgreSQL": _horde(
                Path(folder) / "postgres", loop, {name: server.url(made) for name, made in names.items()}
            ),
        }
        try:
            print(asyncio.run(measure(hordes, runs)))
        finally:
            for horde in hordes.values():
                horde.stop()
    loop.close()


def _horde(folder: Path, loop: Loop, urls: dict[str, str]) -> Services:
    folder.mkdir()
    return Services(folder, loop, lambda name: urls.get(name) or f"sqlite:///{folder}/{name}.db")


async def measure(hordes: dict[str, Services], runs: int) -> str:
    """Median seconds of a no-op job on each, and their ratio, as text."""
    image = await small_image()
    took: dict[str, list[float]] = {name: [] for name in hordes}
    async with contextlib.AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(_client(horde)) for name, horde in hordes.items()}
        for name, horde in hordes.items():
            horde.start("facilitator", "miner", "validator")
            await (await is_up(clients[name], image)).wait(60)
        for _ in range(runs):
            for name, client in clients.items():
                took[name].append(await _one(client, image))
    medians = {name: statistics.median(found) for name, found in took.items()}
    ratio = medians["PostgreSQL"] / medians["SQLite"]
    shown = ", ".join(f"{name} {median * 1000:.0f} ms" for name, median in medians.items())
    return f"a no-op job, {runs} on each database: median {shown}; {ratio:.2f} times (at most {PROMISED} promised)"


def _client(horde: Services) -> ComputeHordeClient:
    keys = horde.keys
    return ComputeHordeClient(keys["user"], keys["validator"].ss58_address, facilitator_url=horde.url)


async def _one(client: ComputeHordeClient, image: str) -> float:
    began = time.perf_counter()
    job = await client.create_job(COMPUTE, "bench", image, ["true"], **SECONDS)
    await job.wait(60)
    if not job.status.is_successful():
        raise SystemExit(f"the job ended as {job.status.value}: {job.error}")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

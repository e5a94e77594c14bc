"""``python -m benchmarks.wait_latency``: from the executor's finished message to the return of ``wait()``.

A whole horde and its client in this process; the way goes through sockets and databases all the same.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bittensor_wallet import Wallet

from compute_horde.cli.logs import configure_logs
from compute_horde.cli.terminal import run_loop
from compute_horde.executor.link import MinerLink
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.protocol.base import Message
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.stack.horde import Horde
from compute_horde.stack.image import small_image
from compute_horde_sdk.v1 import ComputeHordeClient

PROMISED_MS = 20
WARM_UP = 3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=30)
    configure_logs("warning")
    print(run_loop(measure(options.parse_args().runs)))


async def measure(runs: int) -> str:
    """Jobs one after the other on a horde of its own; median and 95th percentile, as text."""
    image = await small_image()
    with tempfile.TemporaryDirectory(prefix="horde-bench-") as folder, _last_messages() as left_at:
        executors = {ExecutorClass.always_on__test: 2}
        async with Horde(
            Path(folder) / "home", port=0, executors=executors, executor_settings=ExecutorSettings()
        ) as horde:
            took = await _jobs(horde, image, runs, left_at)
    median, most = statistics.median(took), sorted(took)[max(0, -(-len(took) * 95 // 100) - 1)]
    return (
        f"from the executor's finished message to the return of wait(), {runs} jobs\n"
        f"  median {median * 1000:.1f} ms (at most {PROMISED_MS} promised), 95 % within {most * 1000:.1f} ms, "
        f"min {min(took) * 1000:.1f}, max {max(took) * 1000:.1f}"
    )


async def _jobs(horde: Horde, image: str, runs: int, left_at: dict[str, float]) -> list[float]:
    ready = horde.announcement
    if ready is None:
        raise SystemExit("the horde did not start")
    hotkey: Any = Wallet(ready.wallet_name, ready.wallet_hotkey, ready.wallet_path).hotkey
    async with ComputeHordeClient(hotkey, ready.validator_hotkey, facilitator_url=ready.facilitator_url) as client:
        return [await _one(client, image, left_at) for _ in range(WARM_UP + runs)][WARM_UP:]


async def _one(client: ComputeHordeClient, image: str, left_at: dict[str, float]) -> float:
    job = await client.create_job("always_on.test", "bench", image, ["echo", "done"])
    await job.wait(60)
    ended = time.perf_counter()
    if not job.status.is_successful():
        raise SystemExit(f"the job ended as {job.status.value}: {job.error}")
    return ended - left_at[job.uuid]


@contextmanager
def _last_messages() -> Iterator[dict[str, float]]:
    """When the executor handed its last message to the link, by job."""
    left_at: dict[str, float] = {}
    finish = MinerLink.finish

    def observed(link: MinerLink, last: Message | str) -> None:
        frame = json.loads(last if isinstance(last, str) else last.to_frame())
        left_at[frame["job_uuid"]] = time.perf_counter()
        finish(link, last)

    with patch.object(MinerLink, "finish", observed):
        yield left_at


if __name__ == "__main__":
    main()

"""``make bench``: what a job costs beside ``docker run``, what an idle horde weighs, how soon a wait ends."""

import argparse
import asyncio
import tempfile
from pathlib import Path

from benchmarks.memory import resident_mib
from benchmarks.no_op import compare
from benchmarks.process import running_horde
from benchmarks.wait_latency import measure
from compute_horde.cli.logs import configure_logs
from compute_horde.cli.terminal import run_loop
from compute_horde.stack.image import small_image


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=20, help="alternating pairs of runs")
    runs = options.parse_args().runs
    image = asyncio.run(small_image())
    with tempfile.TemporaryDirectory(prefix="horde-bench-") as folder, running_horde(Path(folder)) as horde:
        before = resident_mib(horde.pid)
        print(asyncio.run(compare(horde.info, image, runs)))
        print(f"resident memory of `horde up`, idle: {before:.0f} MiB (at most 250 promised)")
        print(f"resident memory of `horde up`, after {runs + 2} jobs: {resident_mib(horde.pid):.0f} MiB")
    configure_logs("warning")
    print(run_loop(measure(runs)))


main()

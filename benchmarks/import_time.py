"""``python -m benchmarks.import_time``: the client's import and first call beside the interpreter."""

import argparse
import statistics
import subprocess
import sys
import time

CASES = {
    "bare interpreter": "pass",
    "import compute_horde_sdk.v1": "import compute_horde_sdk.v1",
    "the wire side (a client's first call)": "import compute_horde_sdk._internal.wire.session",
    "httpx and pydantic alone": "import httpx, pydantic",
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=15, help="of each, one after the other")
    runs = options.parse_args().runs
    took: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(runs + 1):
        for name, code in CASES.items():
            took[name].append(_run(code))
    bare = statistics.median(took["bare interpreter"][1:])
    for name, times in took.items():
        median = statistics.median(times[1:])
        print(f"{name:40} {median * 1000:6.0f} ms  (beyond the interpreter: {(median - bare) * 1000:.0f} ms)")


def _run(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

"""Which executor classes this machine can honestly offer, and how many of each."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.executor_classes import EXECUTOR_CLASSES

GIB = 1024**3
A6000_NAMES = ("A6000", "L40", "A100", "H100", "H200")


def offer(count: int, *, cores: int, ram_bytes: int, gpus: Mapping[str, int]) -> dict[ExecutorClass, int]:
    """Executors by class. ``gpus``: GPU name to its memory in MiB, largest first; a GPU job gets all of them.

    ``always_on.test`` asks for nothing and is always there, ``count`` times.
    """
    offered = {ExecutorClass.always_on__test: count}
    cpu = EXECUTOR_CLASSES[ExecutorClass.always_on__cpu_8c_16gb]
    fitting = min(cores // cpu.cpu_cores, ram_bytes // (cpu.ram_gb * GIB))
    if fitting:
        offered[ExecutorClass.always_on__cpu_8c_16gb] = min(count, fitting)
    largest_mib = max(gpus.values(), default=0)
    if largest_mib >= 24 * 1000:
        offered[ExecutorClass.spin_up_4min__gpu_24gb] = 1
        offered[ExecutorClass.always_on__gpu_24gb] = 1
    if any(mib >= 45 * 1000 and any(name in gpu for name in A6000_NAMES) for gpu, mib in gpus.items()):
        offered[ExecutorClass.always_on__llm__a6000] = 1
    return offered


def machine_offer(count: int) -> dict[ExecutorClass, int]:
    """:func:`offer` for the machine this runs on."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return offer(count, cores=os.cpu_count() or 1, ram_bytes=ram, gpus=_gpus())


def _gpus() -> dict[str, int]:
    """Name and memory (MiB) of the NVIDIA GPUs that containers can be given; needs the container toolkit."""
    smi = shutil.which("nvidia-smi")
    if smi is None or shutil.which("nvidia-container-runtime") is None:
        return {}
    command = [smi, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - fixed
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = (line.rsplit(",", 1) for line in done.stdout.splitlines() if "," in line)
    return {name.strip(): int(memory) for name, memory in rows if memory.strip().isdigit()}

"""What each executor class declares (section 4.1)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from compute_horde.protocol.enums import DockerPreset, ExecutorClass


class ClassSpec(NamedTuple):
    """Facts of one class. ``spin_up_seconds``: how long a miner may take to have an executor up."""

    short_code: str
    gpu: bool
    spin_up_seconds: int
    vram_gb: int = 0
    cpu_cores: int = 0
    ram_gb: int = 0

    @property
    def preset(self) -> DockerPreset:
        return DockerPreset.NVIDIA_ALL if self.gpu else DockerPreset.NONE


EXECUTOR_CLASSES: Mapping[ExecutorClass, ClassSpec] = MappingProxyType(
    {
        ExecutorClass.spin_up_4min__gpu_24gb: ClassSpec("S", gpu=True, spin_up_seconds=240, vram_gb=24),
        ExecutorClass.always_on__gpu_24gb: ClassSpec("A", gpu=True, spin_up_seconds=3, vram_gb=24),
        ExecutorClass.always_on__llm__a6000: ClassSpec("L", gpu=True, spin_up_seconds=30, vram_gb=48),
        ExecutorClass.always_on__test: ClassSpec("T", gpu=False, spin_up_seconds=3),
        ExecutorClass.always_on__cpu_8c_16gb: ClassSpec(
            "C", gpu=False, spin_up_seconds=30, cpu_cores=8, ram_gb=16
        ),
    }
)

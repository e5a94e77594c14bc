"""The disk under a database is full for a while: nothing that was accepted is lost, and it goes on by itself."""

import asyncio
import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from compute_horde_sdk.v1 import ComputeHordeError, ComputeHordeJob

from . import checks
from .engine import Watch, docker
from .scenes import Scene, reached
from .services import Services
from .wires import Loop

DISK_MIB = 16


class Disk(Protocol):
    """Where one service has its database."""

    folder: Path

    def fill(self, services: Services, full: str) -> None:
        """Nothing more can be written there by the service ``full``."""

    def make_room(self, services: Services) -> None:
        """It can again."""


class SmallDisk:
    """A file system of a few MiB for one database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)], check=True)

    def fill(self, services: Services, full: str) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(b"\0" * 4096):
                    pass
            except OSError:
                return

    def make_room(self, services: Services) -> None:
        (self.folder / "ballast").unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


class LimitedFiles:
    """For a user who may not mount: the service's process cannot write to any file, nor can what it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, services: Services, full: str) -> None:
        resource.prlimit(services.processes[full].pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def make_room(self, services: Services) -> None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        for pid in services.pids():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


@pytest.fixture(params=["facilitator", "validator", "miner"])
def full(request: pytest.FixtureRequest) -> str:
    """The service whose disk is full."""
    return str(request.param)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        yield LimitedFiles(folder)
        return
    made = SmallDisk(folder)
    yield made
    made.close()


@pytest.fixture
def services(full: str, disk: Disk, tmp_path: Path, loop_thread: Loop, watch: Watch) -> Iterator[Services]:
    def url(name: str) -> str:
        return f"sqlite:///{disk.folder if name == full else tmp_path}/{name}.db"

    made = Services(tmp_path, loop_thread, url)
    try:
        yield made
    finally:
        made.stop()
        for name in docker("ps", "-aq", "--filter", f"label=compute-horde.executor={made.executor_id}").split():
            docker("rm", "-f", name)


async def test_jobs_outlive_a_full_disk(scene: Scene, disk: Disk, full: str, watch: Watch) -> None:
    script = "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.1; done"
    jobs = [await scene.create(args=["sh", "-c", script]) for _ in range(3)]
    for job in jobs:
        await reached(job, "volumes_ready")
    disk.fill(scene.services, full)
    late = await accepted_meanwhile(scene)
    await asyncio.sleep(4)  # the jobs end meanwhile
    disk.make_room(scene.services)
    await asyncio.gather(*(job.wait(60) for job in (*jobs, *late)))
    for job in (*jobs, *late):
        assert job.status.value == "completed", (full, job.error)
        checks.history_is_right(job)
    checks.ran_once(watch, [*jobs, *late])
    await checks.stored_once(scene.services._database_url("facilitator"), [*jobs, *late])
    again = await scene.create(args=["echo", "again"])
    await again.wait(60)
    assert again.status.value == "completed"
    checks.nothing_is_left(scene.services)


async def accepted_meanwhile(scene: Scene) -> list[ComputeHordeJob]:
    """Jobs created while the disk is full: refused with an error, or accepted and then kept."""
    accepted = []
    for number in range(3):
        try:
            async with asyncio.timeout(2):
                accepted.append(await scene.create(args=["echo", str(number)]))
        except (ComputeHordeError, TimeoutError):
            continue
    return accepted

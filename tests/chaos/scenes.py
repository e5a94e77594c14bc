"""One job in each stage of its life, all at the same time, each held there until the test lets it go."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeError,
    ComputeHordeJob,
    HTTPInputVolume,
    HTTPOutputVolume,
)

from . import engine
from .held import HeldServer
from .services import Services

COMPUTE, SCARCE = "always_on.test", "always_on.cpu.8c.16gb"
TICKS = 'n=0; while [ ! -e /tmp/go ]; do echo "tick $n"; n=$((n+1)); sleep 0.1; done; echo "done $n"'
SECONDS: dict[str, Any] = {
    "download_time_limit_sec": 60,
    "execution_time_limit_sec": 90,
    "upload_time_limit_sec": 60,
}


@dataclass
class Held:
    """A job that is held in a stage. ``ends``: the status that it must come to."""

    job: ComputeHordeJob
    stage: str
    ends: str = "completed"


@dataclass
class Scene:
    """All that a case needs; ``held`` by stage, in the order in which the jobs were created."""

    services: Services
    server: HeldServer
    client: ComputeHordeClient
    image: str
    pulled: "Callable[[], str]"
    held: dict[str, Held] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    async def set_up(self) -> None:
        """Bring one job into each stage."""
        await self.hold("running", self.create(args=["sh", "-c", TICKS]), "volumes_ready")
        await self.hold("cancelling", self.create(args=["sh", "-c", TICKS]), "volumes_ready", ends="cancelled")
        await self.hold(
            "downloading", self.create(args=["cat", "/volume/input.txt"], download=True), "executor_ready"
        )
        await self.hold(
            "uploading",
            self.create(args=["sh", "-c", "echo out > /output/out.txt"], upload=True),
            "execution_done",
        )
        await self.hold("occupying", self.create(SCARCE, args=["sh", "-c", TICKS]), "volumes_ready")
        await self.hold("queued", self.create(SCARCE, args=["echo", "my turn"]), "queued")
        await self.hold("accepted", self.create(image=self.pulled()), "accepted")
        self.services.to_miner.hold_new()
        await self.hold("received", self.create(args=["echo", "hello"]), "received")
        self.services.to_facilitator.hold()
        await self.hold("sent", self.create(args=["echo", "hello"]), "sent")

    async def hold(self, stage: str, creating: Any, status: str, ends: str = "completed") -> None:
        job = await creating
        self.held[stage] = Held(job, stage, ends)
        await reached(job, status)

    async def create(
        self,
        executor_class: str = COMPUTE,
        *,
        image: str | None = None,
        download: bool = False,
        upload: bool = False,
        **spec: Any,
    ) -> ComputeHordeJob:
        if download:
            spec["input_volumes"] = {"/volume/input.txt": HTTPInputVolume(url=self.server.url("download"))}
        if upload:
            spec["output_volumes"] = {
                "/output/out.txt": HTTPOutputVolume(http_method="PUT", url=self.server.url("upload"))
            }
        return await self.client.create_job(executor_class, "SN0", image or self.image, **SECONDS, **spec)

    async def follow(self) -> None:
        """Collect what the running job prints, to its end."""
        async for line in self.held["running"].job.logs(follow=True):
            self.lines.append(line.text)

    def let_go(self) -> None:
        """Let every job go on."""
        services = self.services
        services.to_facilitator.release()
        services.to_miner.release()
        self.server.let_all_go()

    def go(self, stage: str) -> None:
        engine.touch(self.services.executor_id, self.held[stage].job.uuid, "/tmp/go")


async def reached(job: ComputeHordeJob, *statuses: str, within_s: float = 30) -> None:
    """Return when the facilitator says that the job is, or was, in one of these states."""
    end = asyncio.get_running_loop().time() + within_s
    while True:
        await job.refresh_from_facilitator()
        if {entry.status.value for entry in job.status_history} & set(statuses):
            return
        assert asyncio.get_running_loop().time() < end, f"{job.status.value}, not {statuses}, after {within_s} s"
        await asyncio.sleep(0.1)


async def is_up(client: ComputeHordeClient, image: str) -> ComputeHordeJob:
    """The first job, as soon as the facilitator answers and the validator has connected."""
    for _ in range(300):
        try:
            return await client.create_job(COMPUTE, "SN0", image, ["echo", "up"], **SECONDS)
        except ComputeHordeError:
            await asyncio.sleep(0.1)
    raise AssertionError("the services did not come up within 30 s")

"""``horde demo``: a real job through a whole local horde, shown and checked."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import typer
from bittensor_wallet import Wallet
from rich.panel import Panel
from rich.table import Table

from compute_horde.cli.logs import configure_logs
from compute_horde.cli.terminal import fail, out, run_loop
from compute_horde.cli.up import require_engine
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.stack.fileserver import FileServer
from compute_horde.stack.home import Announcement
from compute_horde.stack.horde import Horde
from compute_horde.stack.image import NoImage, small_image
from compute_horde.stack.mandelbrot import COMMAND, PALETTE, View, picture
from compute_horde.stack.offer import machine_offer
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeError,
    ComputeHordeJob,
    ExecutorClass,
    HTTPInputVolume,
    HTTPOutputVolume,
    InlineInputVolume,
)

UPLOAD_PATH = "/bucket/summary.txt"
PALETTE_PATH = "/data/palette.txt"
DEMO_SECONDS = 120


def demo(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show what the services do."),
) -> None:
    """Start a horde in a temporary folder, run a real job through it, show and check what comes back.

    The job reads an inline file and a file fetched over HTTP, computes, returns an artifact, and uploads an output
    by HTTP PUT. Exits 0 only if every part came back right.
    """
    configure_logs("info" if verbose else "error")
    raise typer.Exit(run_loop(_demo()))


async def _demo() -> int:
    settings = ExecutorSettings(allow_private_networks=True)
    await require_engine(settings)
    try:
        image = await small_image(settings.docker_url)
    except NoImage as error:
        fail(str(error))
    out.print(f"job image  {image}", highlight=False)
    with tempfile.TemporaryDirectory(prefix="horde-demo-") as folder, FileServer(_files()) as server:
        started = time.monotonic()
        horde = Horde(Path(folder), port=0, executors=machine_offer(1), executor_settings=settings, end_jobs=True)
        async with horde:
            assert horde.announcement is not None  # noqa: S101 - set by start, for the type checker
            out.print(f"horde up   {horde.announcement.facilitator_url} in {time.monotonic() - started:.1f} s")
            try:
                job = await _run_job(horde.announcement, image, server.url)
            except ComputeHordeError as error:
                fail(str(error), error.hint)
        return _report(job, server.uploads)


def _files() -> dict[str, bytes]:
    return {PALETTE_PATH: (PALETTE + "\n").encode()}


async def _run_job(horde: Announcement, image: str, files_url: str) -> ComputeHordeJob:
    hotkey: Any = Wallet(horde.wallet_name, horde.wallet_hotkey, horde.wallet_path).hotkey
    async with ComputeHordeClient(hotkey, horde.validator_hotkey, facilitator_url=horde.facilitator_url) as client:
        job = await client.create_job(
            ExecutorClass.always_on__test,
            "demo",
            image,
            args=COMMAND,
            artifacts_dir="/artifacts",
            input_volumes={
                "/volume/view": InlineInputVolume.from_file_contents("view.txt", View().to_text().encode()),
                "/volume/palette.txt": HTTPInputVolume(url=files_url + PALETTE_PATH),
            },
            output_volumes={
                "/output/summary.txt": HTTPOutputVolume(http_method="PUT", url=files_url + UPLOAD_PATH)
            },
        )
        out.print(f"job        {job.uuid}\n", highlight=False)
        await _show_stages(job)
    return job


async def _show_stages(job: ComputeHordeJob) -> None:
    """Print each status when it arrives, with the time since the job was sent."""
    waiting = asyncio.ensure_future(job.wait(timeout=DEMO_SECONDS))
    shown = 0
    while True:
        done = waiting.done()
        for entry in job.status_history[shown:]:
            elapsed = (entry.created_at - job.status_history[0].created_at).total_seconds()
            out.print(f"  {elapsed:6.3f} s  [cyan]{entry.status.value}[/]", highlight=False)
        shown = len(job.status_history)
        if done:
            break
        await asyncio.wait({waiting}, timeout=0.02)
    await waiting


def _report(job: ComputeHordeJob, uploads: dict[str, bytes]) -> int:
    drawn, summary = picture(View(), PALETTE)
    result = job.result
    artifact = result.artifacts.get("/artifacts/mandelbrot.txt", b"") if result else b""
    if artifact:
        out.print(Panel(artifact.decode(errors="replace").rstrip("\n"), title="the artifact", expand=False))
    checks = {
        "the job completed": job.status.is_successful(),
        "stdout came back": bool(result and "inside the set" in result.stdout),
        "the artifact is the right picture": artifact == drawn.encode(),
        "the output was uploaded by HTTP PUT": uploads.get(UPLOAD_PATH) == summary.encode(),
        "the upload's answer came back": bool(result and "/output/summary.txt" in result.upload_results),
    }
    table = Table(show_header=False, box=None)
    for text, good in checks.items():
        table.add_row("[green]✓[/]" if good else "[red]✗[/]", text)
    out.print(table)
    if job.error is not None:
        out.print(f"[red]{job.error.code}[/]: {job.error.message}", highlight=False)
    return 0 if all(checks.values()) else 1

"""``horde up``: a whole horde on this machine, in one process."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.panel import Panel

from compute_horde.cli.logs import LogFormatOption, configure_logs
from compute_horde.cli.terminal import err, fail, out, run_loop, stop_event
from compute_horde.executor.docker import DockerRuntime
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.stack.home import Announcement, HomeError, default_home
from compute_horde.stack.horde import Horde
from compute_horde.stack.offer import machine_offer

ENGINE_HINT = (
    "Start a container engine, or install one: https://docs.docker.com/engine/install/ "
    "(Debian: apt-get install docker.io). DOCKER_HOST names one that listens elsewhere."
)


def up(
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where keys and databases live. Made on first use.", show_default=False),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The facilitator's port; 0 picks a free one.")
    ] = 9000,
    executors: Annotated[
        int, typer.Option(min=1, max=64, help="Executors of every class that this machine can honestly offer.")
    ] = 2,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON on stdout when ready, all else on stderr.")
    ] = False,
    private_networks: Annotated[
        bool, typer.Option(help="Let jobs fetch from and upload to loopback and private addresses.")
    ] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the services do.")] = False,
    log_format: LogFormatOption = None,
) -> None:
    """Start a whole horde on 127.0.0.1: facilitator, validator, miner, trusted miner and executors.

    When it is ready, it shows how to submit a job. Ctrl-C stops it; started again on the same --dir, it goes on
    with what it had.
    """
    configure_logs("info" if verbose else "warning", log_format)
    home = (directory or default_home()).expanduser().absolute()
    raise typer.Exit(run_loop(_up(home, port, executors, as_json, private_networks)))


async def _up(home: Path, port: int, executors: int, as_json: bool, private_networks: bool) -> int:
    stop = stop_event()
    settings = ExecutorSettings(allow_private_networks=private_networks, no_gpu=False)
    await require_engine(settings)
    horde = Horde(home, port=port, executors=machine_offer(executors), executor_settings=settings)
    try:
        ready = await horde.start()
    except HomeError as error:
        fail(str(error))
    except OSError as error:
        fail(str(error), "Choose another with --port, or --port 0 for a free one.")
    except TimeoutError:
        fail("the parts of the horde did not find each other in time", "Run again with --verbose to see why.")
    try:
        _announce(ready, as_json)
        await stop.wait()
        if not as_json:
            err.print("Stopping…")
    finally:
        await horde.stop()
    return 0


async def require_engine(settings: ExecutorSettings) -> None:
    """Exit with a hint when no container engine answers: before anything else is started."""
    runtime = DockerRuntime(settings)
    try:
        await runtime.check()
    except JobFailure as error:
        fail(str(error), ENGINE_HINT if error.problem.code == "engine_unavailable" else error.problem.hint)
    finally:
        await runtime.close()


def _announce(ready: Announcement, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(ready.to_json() + "\n")
        sys.stdout.flush()
        return
    out.print(
        Panel(
            f"[bold green]The horde is up[/] at {ready.facilitator_url}\n\n"
            f"[bold]From a shell[/]\n  horde run busybox -- echo hello\n\n"
            f"[bold]From Python[/]\n"
            f"  from bittensor_wallet import Wallet\n"
            f"  from compute_horde_sdk.v1 import ComputeHordeClient\n"
            f"  client = ComputeHordeClient(\n"
            f'      Wallet("{ready.wallet_name}", "{ready.wallet_hotkey}", "{ready.wallet_path}").hotkey,\n'
            f'      "{ready.validator_hotkey}",\n'
            f'      facilitator_url="{ready.facilitator_url}",\n'
            f"  )\n"
            f'  job = await client.create_job("always_on.test", "demo", "busybox", ["date"])\n'
            f"  await job.wait()\n\n"
            f"Ctrl-C stops it.",
            title="Compute Horde",
            border_style="green",
            expand=False,
        ),
        soft_wrap=True,
    )

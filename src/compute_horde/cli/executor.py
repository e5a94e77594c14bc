"""``horde executor``: one job in a process of its own."""

import asyncio
import contextlib
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from compute_horde.cli.logs import LogFormatOption
from compute_horde.cli.serving import Config, LogLevel, PrintConfig, settings_of
from compute_horde.cli.terminal import fail, run_loop, stop_event
from compute_horde.executor.docker import DockerRuntime
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.service import Executor
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.transport.websocket import WebSocketDialer

if TYPE_CHECKING:
    from compute_horde.telemetry.executor import ExecutorMetrics

log = structlog.get_logger(__name__)


def executor(
    miner_address: Annotated[
        str, typer.Option(envvar="MINER_ADDRESS", help="The miner, such as ws://127.0.0.1:8000.")
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            envvar="EXECUTOR_TOKEN", help="The one-job token that the miner gave out.", show_default=False
        ),
    ] = "",
    startup_time_limit: Annotated[
        int, typer.Option(min=1, help="Seconds to get ready in, image pull included.")
    ] = 300,
    warm: Annotated[
        bool, typer.Option("--warm", help='Wait for one line of JSON on stdin: {"miner_url": …, "token": …}.')
    ] = False,
    config: Config = None,
    print_config: PrintConfig = False,
    log_level: LogLevel = "warning",
    log_format: LogFormatOption = None,
) -> None:
    """Run one job for a miner, then end. Miners start executors themselves; by hand it is for debugging.

    Settings come from the TOML file and from HORDE_EXECUTOR_* in the environment, which wins.
    """
    settings = settings_of(ExecutorSettings, config, print_config, log_level, log_format)
    if not warm and not (miner_address and token):
        fail("an executor needs --miner-address and --token, or --warm", code=2)
    run_loop(_execute(settings, miner_address, token, startup_time_limit, warm))


async def _execute(settings: ExecutorSettings, miner_url: str, token: str, startup_s: int, warm: bool) -> None:
    stop = stop_event()
    runtime = DockerRuntime(settings)
    try:
        async with _watched(settings, runtime) as metrics:
            one = Executor(settings, runtime, WebSocketDialer(), metrics=metrics)
            job = asyncio.create_task(_one_job(one, miner_url, token, startup_s, warm))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({job, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in (job, stopped):
                task.cancel()
            await asyncio.gather(job, stopped, return_exceptions=True)
            await one.close()
        if not job.cancelled() and (error := job.exception()) is not None:
            why = error.strerror if isinstance(error, OSError) else str(error)  # a path holds the token
            log.error("the executor failed", kind=type(error).__name__, why=why)
            raise typer.Exit(1)
    finally:
        await runtime.close()


@contextlib.asynccontextmanager
async def _watched(settings: ExecutorSettings, runtime: DockerRuntime) -> AsyncIterator["ExecutorMetrics | None"]:
    """What the executor is to count in. It is shown where the settings name a port, else nobody counts."""
    if settings.operations_port is None:
        yield None
        return
    from compute_horde.executor.operations import Watched  # noqa: PLC0415 - most start faster without a server

    watched = Watched(settings, runtime)
    await watched.operations.start()
    try:
        yield watched.metrics
    finally:
        await watched.operations.stop()


async def _one_job(one: Executor, miner_url: str, token: str, startup_s: int, warm: bool) -> None:
    if warm:
        await _warm_up(one)
        line = await _stdin_line()
        if not line:
            return
        order = json.loads(line)
        miner_url, token = order["miner_url"], order["token"]
    await one.run(miner_url, token, startup_s)


async def _warm_up(one: Executor) -> None:
    """What keeps it from that may have passed when its job comes; if not, the miner is told then."""
    try:
        await one.warm()
    except JobFailure as failed:
        log.error("the executor is not ready for a job", why=str(failed), hint=failed.problem.hint)
    except OSError as error:
        log.error("the executor is not ready for a job", why=str(error))


async def _stdin_line() -> bytes:
    """One line of stdin, cancellable; empty when the miner went away, or there never was one."""
    if not _can_wait(sys.stdin.fileno()):
        return await asyncio.to_thread(sys.stdin.buffer.readline)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return await reader.readline()


def _can_wait(descriptor: int) -> bool:
    """Whether reading it may wait for somebody; a file and ``/dev/null`` answer at once, and are not watched."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)

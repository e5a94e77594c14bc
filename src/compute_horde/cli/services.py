"""``horde facilitator | validator | miner | executor``: each service as its own process."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from compute_horde.chain.keys import WalletError, load_hotkey
from compute_horde.chain.static import ChainFileError, StaticChain
from compute_horde.cli.logs import configure_logs
from compute_horde.cli.terminal import err, fail, out, run_loop, stop_event
from compute_horde.configuration import ConfigurationError, ServiceSettings
from compute_horde.executor.docker import DockerRuntime
from compute_horde.executor.service import Executor
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.facilitator.service import FacilitatorService
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.miner.processes import ProcessLauncher
from compute_horde.miner.service import MinerService
from compute_horde.miner.settings import MinerSettings
from compute_horde.transport.websocket import WebSocketDialer
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.settings import ValidatorSettings

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="A TOML file with the settings.", show_default=False)
]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Show the effective settings, secrets hidden, and exit.")
]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]
LOG_LEVELS = ("debug", "info", "warning", "error")


class Service(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def facilitator(config: Config = None, print_config: PrintConfig = False, log_level: LogLevel = "info") -> None:
    """Run the facilitator: the HTTP front door that takes signed jobs and keeps their history.

    Settings come from the TOML file and from HORDE_FACILITATOR_* in the environment, which wins.
    """
    settings = _settings(FacilitatorSettings, config, print_config, log_level)
    _serve("facilitator", lambda: FacilitatorService(settings, _chain(settings.chain_file)))


def validator(config: Config = None, print_config: PrintConfig = False, log_level: LogLevel = "info") -> None:
    """Run the validator: checks signatures, picks miners, drives jobs to their end, signs receipts.

    Settings come from the TOML file and from HORDE_VALIDATOR_* in the environment, which wins.
    """
    settings = _settings(ValidatorSettings, config, print_config, log_level)
    _serve("validator", lambda: ValidatorService(settings, _hotkey(settings), _chain(settings.chain_file)))


def miner(config: Config = None, print_config: PrintConfig = False, log_level: LogLevel = "info") -> None:
    """Run the miner: offers executors by class, reserves one per job, keeps receipts.

    With `trusted_for` set to a validator's hotkey it is that validator's trusted miner.
    Settings come from the TOML file and from HORDE_MINER_* in the environment, which wins.
    """
    settings = _settings(MinerSettings, config, print_config, log_level)
    _serve("miner", lambda: _miner(settings))


def _miner(settings: MinerSettings) -> Service:
    hotkey = None if settings.trusted_for else _hotkey(settings)
    return MinerService(settings, _chain(settings.chain_file), ProcessLauncher(), hotkey=hotkey)


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
) -> None:
    """Run one job for a miner, then end. Miners start executors themselves; by hand it is for debugging.

    Settings come from the TOML file and from HORDE_EXECUTOR_* in the environment, which wins.
    """
    settings = _settings(ExecutorSettings, config, print_config, log_level)
    if not warm and not (miner_address and token):
        fail("an executor needs --miner-address and --token, or --warm", code=2)
    run_loop(_execute(settings, miner_address, token, startup_time_limit, warm))


async def _execute(settings: ExecutorSettings, miner_url: str, token: str, startup_s: int, warm: bool) -> None:
    stop = stop_event()
    runtime = DockerRuntime(settings)
    one = Executor(settings, runtime, WebSocketDialer())
    try:
        job = asyncio.create_task(_one_job(one, miner_url, token, startup_s, warm))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({job, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (job, stopped):
            task.cancel()
        await asyncio.gather(job, stopped, return_exceptions=True)
    finally:
        await one.close()
        await runtime.close()


async def _one_job(one: Executor, miner_url: str, token: str, startup_s: int, warm: bool) -> None:
    if warm:
        await one.warm()
        line = await _stdin_line()
        if not line:
            return
        order = json.loads(line)
        miner_url, token = order["miner_url"], order["token"]
    await one.run(miner_url, token, startup_s)


async def _stdin_line() -> bytes:
    """One line of stdin, cancellable; empty when the miner went away."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return await reader.readline()


def _settings(kind: type[ServiceSettings], config: Path | None, print_config: bool, log_level: str) -> Any:
    if log_level not in LOG_LEVELS:
        fail(f"--log-level must be one of {', '.join(LOG_LEVELS)}", code=2)
    try:
        settings = kind.load(config)
    except ConfigurationError as error:
        fail(str(error), "`--print-config` shows the settings that are in force.", code=2)
    if print_config:
        out.print_json(settings.model_dump_json())
        raise typer.Exit
    configure_logs(log_level)
    return settings


def _chain(path: Path | None) -> StaticChain:
    if path is None:
        fail(
            "no chain_file is set",
            "Point chain_file at a TOML file with validators, miners, users and signers.",
            2,
        )
    try:
        return StaticChain(path)
    except ChainFileError as error:
        fail(str(error), code=2)


def _hotkey(settings: Any) -> Any:
    try:
        return load_hotkey(settings.wallet_path, settings.wallet_name, settings.wallet_hotkey)
    except WalletError as error:
        fail(str(error), code=2)


def _serve(name: str, build: Callable[[], Service]) -> None:
    run_loop(_serve_until_stopped(name, build()))


async def _serve_until_stopped(name: str, service: Service) -> None:
    stop = stop_event()
    try:
        await service.start()
    except OSError as error:
        await service.stop()
        fail(str(error))
    where = getattr(service, "url", "")
    err.print(f"{name} is running{f' at {where}' if where else ''}; Ctrl-C stops it", highlight=False)
    try:
        await stop.wait()
    finally:
        await service.stop()

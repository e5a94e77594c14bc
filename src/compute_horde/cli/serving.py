"""What the commands that run a service share: settings, logs, keys, and running until a signal comes."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from compute_horde.chain.keys import WalletError, load_hotkey
from compute_horde.chain.static import ChainFileError, StaticChain
from compute_horde.cli.logs import configure_logs
from compute_horde.cli.terminal import err, fail, out, run_loop, stop_event
from compute_horde.configuration import ConfigurationError, ServiceSettings
from compute_horde.storage.errors import StorageError
from compute_horde.telemetry.logs import LogFormat

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


def settings_of(
    kind: type[ServiceSettings],
    config: Path | None,
    print_config: bool,
    log_level: str,
    log_format: LogFormat | None,
) -> Any:
    """The settings in force, with logs set up; exits where they are wrong or were only to be shown."""
    if log_level not in LOG_LEVELS:
        fail(f"--log-level must be one of {', '.join(LOG_LEVELS)}", code=2)
    try:
        settings = kind.load(config)
    except ConfigurationError as error:
        fail(str(error), "`--print-config` shows the settings that are in force.", code=2)
    if print_config:
        out.print_json(settings.model_dump_json())
        raise typer.Exit
    configure_logs(log_level, log_format)
    return settings


def chain_of(path: Path | None) -> StaticChain:
    """The chain file; exits where there is none."""
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


def hotkey_of(settings: Any) -> Any:
    """The service's key; exits where it cannot be read."""
    try:
        return load_hotkey(settings.wallet_path, settings.wallet_name, settings.wallet_hotkey)
    except WalletError as error:
        fail(str(error), code=2)


def serve(name: str, build: Callable[[], Service]) -> None:
    """Run a service until SIGINT or SIGTERM."""
    run_loop(_serve_until_stopped(name, build))


async def _serve_until_stopped(name: str, build: Callable[[], Service]) -> None:
    stop = stop_event()
    try:
        service = build()
    except StorageError as error:
        fail(str(error), code=2)
    try:
        await service.start()
    except (OSError, StorageError) as error:
        await service.stop()
        fail(str(error))
    where = getattr(service, "url", "")
    err.print(f"{name} is running{f' at {where}' if where else ''}; Ctrl-C stops it", highlight=False)
    try:
        await stop.wait()
    finally:
        await service.stop()

"""``horde miner``: the miner as its own process, with its executors as processes beside it."""

from compute_horde.cli.logs import LogFormatOption
from compute_horde.cli.serving import (
    Config,
    LogLevel,
    PrintConfig,
    chain_of,
    hotkey_of,
    serve,
    settings_of,
)
from compute_horde.miner.processes import ProcessLauncher
from compute_horde.miner.service import MinerService
from compute_horde.miner.settings import MinerSettings


def miner(
    config: Config = None,
    print_config: PrintConfig = False,
    log_level: LogLevel = "info",
    log_format: LogFormatOption = None,
) -> None:
    """Run the miner: offers executors by class, reserves one per job, keeps receipts.

    With `trusted_for` set to a validator's hotkey it is that validator's trusted miner.
    Settings come from the TOML file and from HORDE_MINER_* in the environment, which wins.
    """
    settings = settings_of(MinerSettings, config, print_config, log_level, log_format)
    chain = chain_of(settings.chain_file)
    hotkey = None if settings.trusted_for else hotkey_of(settings)
    serve("miner", lambda: MinerService(settings, chain, ProcessLauncher(), hotkey=hotkey))

"""``horde validator``: the validator as its own process."""

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
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.settings import ValidatorSettings


def validator(
    config: Config = None,
    print_config: PrintConfig = False,
    log_level: LogLevel = "info",
    log_format: LogFormatOption = None,
) -> None:
    """Run the validator: checks signatures, picks miners, drives jobs to their end, signs receipts.

    Settings come from the TOML file and from HORDE_VALIDATOR_* in the environment, which wins.
    """
    settings = settings_of(ValidatorSettings, config, print_config, log_level, log_format)
    hotkey, chain = hotkey_of(settings), chain_of(settings.chain_file)
    serve("validator", lambda: ValidatorService(settings, hotkey, chain))

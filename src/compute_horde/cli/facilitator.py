"""``horde facilitator``: the facilitator as its own process."""

from compute_horde.cli.logs import LogFormatOption
from compute_horde.cli.serving import Config, LogLevel, PrintConfig, chain_of, serve, settings_of
from compute_horde.facilitator.service import FacilitatorService
from compute_horde.facilitator.settings import FacilitatorSettings


def facilitator(
    config: Config = None,
    print_config: PrintConfig = False,
    log_level: LogLevel = "info",
    log_format: LogFormatOption = None,
) -> None:
    """Run the facilitator: the HTTP front door that takes signed jobs and keeps their history.

    Settings come from the TOML file and from HORDE_FACILITATOR_* in the environment, which wins.
    """
    settings = settings_of(FacilitatorSettings, config, print_config, log_level, log_format)
    chain = chain_of(settings.chain_file)
    serve("facilitator", lambda: FacilitatorService(settings, chain))

"""The services' logs go to stderr; ``--log-format`` or ``HORDE_LOG_FORMAT`` says in which form."""

import os
import sys
from typing import Annotated

import typer

from compute_horde.cli.terminal import fail
from compute_horde.telemetry.logs import LogFormat, configure

LOG_FORMAT_VARIABLE = "HORDE_LOG_FORMAT"

LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option("--log-format", help="text or json; HORDE_LOG_FORMAT says it, too.", show_default="text"),
]


def configure_logs(level: str, log_format: LogFormat | None = None) -> None:
    """``level``: debug, info, warning or error. Exits with 2 where the environment names no such format."""
    configure(level, log_format or _from_environment(), sys.stderr)


def _from_environment() -> LogFormat:
    word = os.environ.get(LOG_FORMAT_VARIABLE) or LogFormat.TEXT
    try:
        return LogFormat(word)
    except ValueError:
        fail(f"{LOG_FORMAT_VARIABLE} must be text or json", code=2)

"""The command tree. A command's module is imported only when the command is used: the client's start fast."""

import importlib
import importlib.util
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import typer
from typer.core import TyperGroup

COMMANDS = MappingProxyType(
    {
        "up": "compute_horde.cli.up",
        "run": "compute_horde.cli.run",
        "demo": "compute_horde.cli.demo",
        "facilitator": "compute_horde.cli.services",
        "validator": "compute_horde.cli.services",
        "miner": "compute_horde.cli.services",
        "executor": "compute_horde.cli.services",
    }
)
"""Where each command lives; its function has the command's name."""

CLIENT_ONLY = frozenset({"run"})
"""Commands that the base install can run; the others need the ``horde`` extra."""


class LazyCommands(TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in CLIENT_ONLY and importlib.util.find_spec("litestar") is None:
            return _needs_the_extra(cmd_name)
        function = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        return _as_command(cmd_name, function)


def _as_command(name: str, function: Any) -> Any:
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    # what follows IMAGE belongs to the job, even where it looks like an option of ours
    single.command(name, context_settings={"allow_interspersed_args": False})(function)
    return typer.main.get_command(single)


def _needs_the_extra(name: str) -> Any:
    def explain() -> None:
        typer.echo(f"`horde {name}` needs the services: pip install 'compute-horde[horde]'", err=True)
        raise typer.Exit(2)

    explain.__doc__ = "Needs the `horde` extra."
    return _as_command(name, explain)


app = typer.Typer(
    name="horde",
    cls=LazyCommands,
    help="Send Docker jobs to machines you do not own, and trust what comes back.\n\n"
    "Start with `horde demo`, or with `horde up` in one terminal and `horde run IMAGE` in another.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"compute-horde {version('compute-horde')}")
        raise typer.Exit


@app.callback()
def main(
    _version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options that come before the command."""

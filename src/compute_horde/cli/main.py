"""The command tree. A command's module is imported only when the command is used: the client's start fast."""

import importlib
import importlib.util
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Entry(NamedTuple):
    """``module``: where the command lives, under its own name. ``help``: its docstring's first line."""

    module: str
    help: str


COMMANDS = MappingProxyType(
    {
        "up": Entry(
            "up", "Start a whole horde on 127.0.0.1: facilitator, validator, miner, trusted miner and executors."
        ),
        "run": Entry("run", "Submit a job, follow it, print its result."),
        "jobs": Entry("jobs", "List, inspect, follow and cancel your jobs."),
        "explain": Entry(
            "explain",
            "Say why a job has not started: what each miner was asked and answered, and what would make it run.",
        ),
        "login": Entry("login", "Check how to reach a horde, and keep it as a profile for the other commands."),
        "logout": Entry("login", "Forget a profile. The key it names stays where it is."),
        "profiles": Entry("login", "List the profiles that `horde login` wrote."),
        "demo": Entry(
            "demo",
            "Start a horde in a temporary folder, run a real job through it, show and check what comes back.",
        ),
        "backup": Entry("backup", "Copy a horde's databases, keys and chain file while it runs."),
        "facilitator": Entry(
            "facilitator",
            "Run the facilitator: the HTTP front door that takes signed jobs and keeps their history.",
        ),
        "validator": Entry(
            "validator",
            "Run the validator: checks signatures, picks miners, drives jobs to their end, signs receipts.",
        ),
        "miner": Entry("miner", "Run the miner: offers executors by class, reserves one per job, keeps receipts."),
        "executor": Entry(
            "executor",
            "Run one job for a miner, then end. Miners start executors themselves; by hand it is for debugging.",
        ),
    }
)
"""Every command of ``horde``, in the order in which help shows them."""

CLIENT_ONLY = frozenset({"run", "jobs", "explain", "login", "logout", "profiles"})
"""Commands that the base install can run; the others need the ``horde`` extra."""

WHAT_FOLLOWS_IS_THE_JOBS = frozenset({"run"})
"""Commands whose first argument ends the options, since what comes after it belongs to the job."""


class Deferred(TyperCommand):
    """Stands for a command in help and completion. The command itself is imported when it gets its arguments."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.help, rich_markup_mode="markdown")
        self._module = f"compute_horde.cli.{entry.module}"

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self._load().make_context(info_name, args, parent=parent, **extra)

    def _load(self) -> Any:
        assert self.name is not None  # noqa: S101 - given at construction, for the type checker
        if self.name not in CLIENT_ONLY and importlib.util.find_spec("litestar") is None:
            return _needs_the_extra(self.name)
        return as_command(self.name, getattr(importlib.import_module(self._module), self.name))


class LazyCommands(TyperGroup):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return Deferred(cmd_name, COMMANDS[cmd_name]) if cmd_name in COMMANDS else None


def as_command(name: str, what: Any) -> Any:
    """The command made of a function, or of a group of commands."""
    if isinstance(what, typer.Typer):
        return typer.main.get_command(what)
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    settings = {"allow_interspersed_args": name not in WHAT_FOLLOWS_IS_THE_JOBS}
    single.command(name, context_settings=settings)(what)
    return typer.main.get_command(single)


def _needs_the_extra(name: str) -> Any:
    def explain() -> None:
        typer.echo(f"`horde {name}` needs the services: pip install 'compute-horde[horde]'", err=True)
        raise typer.Exit(2)

    explain.__doc__ = "Needs the `horde` extra."
    return as_command(name, explain)


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

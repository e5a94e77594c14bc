"""What every command shares with the person at the terminal: consoles, logs, errors, signals."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console

T = TypeVar("T")

out = Console()
err = Console(stderr=True)

EXIT_USAGE = 2


def fail(message: str, hint: str = "", code: int = 1) -> NoReturn:
    """Say what went wrong and what to do, on stderr, and exit."""
    err.print(f"[bold red]error:[/] {_plain(message)}", highlight=False, soft_wrap=True)
    if hint:
        err.print(f"[bold]hint:[/] {_plain(hint)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def stop_event() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set, in place of their usual effect."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, event.set)
    return event


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - belongs to the services' extra
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def quiet_on_broken_pipe() -> None:
    """Let ``horde ... | head`` end without a traceback."""
    if hasattr(signal, "SIGPIPE") and not sys.stdout.isatty():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)

"""What every command shares with the person at the terminal: consoles, logs, errors, signals."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, NoReturn, TextIO, TypeVar

import typer
from rich.console import Console
from rich.text import Text

T = TypeVar("T")
BROKEN_PIPE = 128 + 13

out = Console()
err = Console(stderr=True)

_HARMLESS = re.compile(r"(\x1b\[[0-9;]{0,32}m|[\n\t\r])|.", re.DOTALL)
"""Group 1: colours and plain white space; else one character to be made printable."""


def fail(message: str, hint: str = "", code: int = 1) -> NoReturn:
    """Say what went wrong and what to do, on stderr, and exit."""
    say_error(message, hint)
    raise typer.Exit(code)


def say_error(message: str, hint: str = "") -> None:
    """What went wrong and what to do, on stderr."""
    _say("error:", "bold red", message)
    if hint:
        _say("hint:", "bold", hint)


def note(message: str) -> None:
    """One line on stderr about what goes on."""
    err.print(printable(message), markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Text of a remote party, so that it cannot forge lines of ours or drive the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def write_output(stream: TextIO, text: str) -> None:
    """A job's output. A file or pipe gets it as it is; a terminal gets nothing that could drive it but colours."""
    if stream.isatty():
        text = _HARMLESS.sub(lambda found: found[0] if found[1] else printable(found[0]), text)
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _say(label: str, style: str, text: str) -> None:
    """``text`` may be a remote party's: it is shown as it is, and drives nothing."""
    err.print(Text.assemble((label, style), " ", printable(text)), soft_wrap=True)


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


@contextlib.contextmanager
def quiet_on_broken_pipe() -> Iterator[None]:
    """Let ``horde ... | head`` end without a traceback, with the exit code of SIGPIPE.

    The signal itself stays ignored: it would end us for a broken connection to the facilitator, too.
    """
    try:
        yield
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # no file behind it, as in a test
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's last flush
        raise typer.Exit(BROKEN_PIPE) from None

"""``horde backup``: copy a horde's databases, keys and chain file while it runs."""

import contextlib
import datetime as dt
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.filesize import decimal
from rich.progress import Progress, TaskID

from compute_horde.cli.terminal import err, fail, out
from compute_horde.stack.home import Home, default_home
from compute_horde.storage import backup as backups
from compute_horde.storage.address import read_address
from compute_horde.storage.errors import DatabaseMisconfigured

TERMINATED = 128 + signal.SIGTERM


def backup(
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="The folder to make; it must not be there, or be empty.")
    ],
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", help="The horde's folder: databases, keys, chain file.", show_default="the usual one"
        ),
    ] = None,
    databases: Annotated[
        list[str] | None,
        typer.Option(
            "--database",
            metavar="URL",
            help="A service's `database_url`, for services run by themselves; repeat for more.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Copy a horde's databases, keys and chain file while it runs.

    All databases are cut at one moment. The copy is checked, and appears under its name only once it is whole.
    `horde up --dir COPY` goes on from a copy of it. With --database, only what is named is copied.
    """
    sources = _named(databases or [])
    files: dict[str, Path] = {}
    if directory or not databases:
        found, files = _of_home(Home((directory or default_home()).expanduser()))
        sources = _joined(sources, found)
    target = target.expanduser().absolute()
    try:
        backups.require_empty(target)
    except backups.BackupError as error:
        fail(str(error), code=2)
    _show(_take(sources, files, target), as_json)


def _named(urls: list[str]) -> dict[str, Path]:
    """The files behind database URLs, by name. Exits with 2 for what is no file."""
    named: dict[str, Path] = {}
    for text in urls:
        named = _joined(named, {(path := _file_of(text)).name: path})
    return named


def _file_of(url: str) -> Path:
    try:
        address = read_address(url)
    except DatabaseMisconfigured as error:
        fail(str(error), code=2)
    if address.dialect == "postgresql":
        fail(
            "PostgreSQL has a tool of its own for backups: pg_dump",
            f"pg_dump --format=custom --file=horde.dump '{address.name}'",
            2,
        )
    if address.file is None:
        fail("a database in memory cannot be backed up", code=2)
    return address.file.expanduser()


def _joined(some: dict[str, Path], more: dict[str, Path]) -> dict[str, Path]:
    for name in some.keys() & more.keys():
        fail(f"two databases are called {name}", "Back them up one by one, each to a folder of its own.", 2)
    return {**some, **more}


def _of_home(home: Home) -> tuple[dict[str, Path], dict[str, Path]]:
    """The databases and the files that `horde up` goes on with."""
    databases = {path.name: path for path in sorted(home.path.glob("*.db"))}
    if not databases:
        fail(f"there is no horde at {home.path}", "--dir names the folder that `horde up` was given.", 2)
    kept = [*sorted(home.wallets.rglob("*")), home.chain_file]
    return databases, {str(path.relative_to(home.path)): path for path in kept if path.is_file()}


def _take(databases: dict[str, Path], files: dict[str, Path], target: Path) -> backups.Backup:
    try:
        with _ending_on_sigterm(), Progress(console=err, transient=True, disable=not err.is_terminal) as shown:
            return backups.take(databases, files, target, progress=_Bars(shown))
    except backups.BackupError as error:
        fail(str(error))


class _Bars:
    """A bar for each database."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._bars: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, of: int) -> None:
        if name not in self._bars:
            self._bars[name] = self._shown.add_task(name)
        self._shown.update(self._bars[name], completed=done, total=of)


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block like Ctrl-C, so that nothing half made is left."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise typer.Exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(made: backups.Backup, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(_as_object(made)) + "\n")
        return
    size = decimal(sum(copied.bytes for copied in made.databases))
    names = ", ".join(copied.name for copied in made.databases)
    out.print(
        f"{names} ({size}) and {len(made.files)} files are in {made.target}", highlight=False, soft_wrap=True
    )


def _as_object(made: backups.Backup) -> dict[str, object]:
    """The keys are a promise (docs/cli.md)."""
    return {
        "target": str(made.target),
        "taken_at": dt.datetime.fromtimestamp(made.taken_at, dt.UTC).isoformat(),
        "databases": [{"name": copied.name, "bytes": copied.bytes} for copied in made.databases],
        "files": list(made.files),
    }

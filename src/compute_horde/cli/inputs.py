"""What a job is made of, from the command line's texts."""

import os
from collections.abc import Iterable
from pathlib import Path

from compute_horde.cli.terminal import fail
from compute_horde_sdk.v1 import (
    ComputeHordeValidationError,
    ExecutorClass,
    HTTPInputVolume,
    HTTPOutputVolume,
    InlineInputVolume,
)


def executor_class(name: str) -> ExecutorClass:
    try:
        return ExecutorClass(name)
    except ValueError:
        fail(f"unknown class {name!r}", f"Choose one of: {', '.join(ExecutorClass)}.", 2)


def class_names(incomplete: str) -> list[str]:
    """For the shell's completion."""
    return [name.value for name in ExecutorClass if name.value.startswith(incomplete)]


def environment(file: Path | None, items: Iterable[str]) -> dict[str, str]:
    """The file's variables, then the command line's over them."""
    return {**(_env_file(file) if file else {}), **dict(_pair(item, "--env", "NAME=VALUE") for item in items)}


def input_volumes(items: Iterable[str]) -> dict[str, HTTPInputVolume | InlineInputVolume] | None:
    return dict(_input(item) for item in items) or None


def output_volumes(items: Iterable[str], option: str) -> dict[str, HTTPOutputVolume] | None:
    return dict(_output(item, option) for item in items) or None


def _env_file(file: Path) -> dict[str, str]:
    """NAME=VALUE, one a line; NAME alone is taken from our own environment; blank lines and ``#`` are left out."""
    try:
        lines = file.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--env-file: cannot read {file}: {getattr(error, 'strerror', None) or error}", code=2)
    found: dict[str, str] = {}
    for line in lines:
        name, sign, value = line.partition("=")
        name = name.strip()
        if not name or name.startswith("#"):
            continue
        if sign:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _pair(item: str, option: str, shape: str) -> tuple[str, str]:
    name, sign, value = item.partition("=")
    if not sign or not name:
        fail(f"{option} {item!r} must be {shape}", code=2)
    return name, value


def _input(item: str) -> tuple[str, HTTPInputVolume | InlineInputVolume]:
    path, source = _pair(item, "--input", "/volume/PATH=SOURCE")
    try:
        if source.startswith(("http://", "https://")):
            return path, HTTPInputVolume(url=source)
        return path, InlineInputVolume.from_path(Path(source).expanduser())
    except ComputeHordeValidationError as error:
        fail(f"--input {path}: cannot read {source}: {error.message}", error.hint, 2)


def _output(item: str, option: str) -> tuple[str, HTTPOutputVolume]:
    path, url = _pair(item, option, "/output/PATH=URL")
    try:
        return path, HTTPOutputVolume(http_method="PUT", url=url)
    except ComputeHordeValidationError as error:
        fail(f"{option} {path}: {error.message}", error.hint, 2)

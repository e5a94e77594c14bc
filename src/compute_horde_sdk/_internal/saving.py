"""Files whose names a stranger chose, written into a folder of the user's."""

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError

MAX_NAME_BYTES = 200
"""Of a file's name; leaves room for a number within the 255 that file systems take."""

_WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def save_files(contents: Mapping[str, bytes], directory: Path, *, overwrite: bool) -> list[Path]:
    """See ``ComputeHordeJobResult.save_artifacts``."""
    names = _names(contents)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except (FileExistsError, NotADirectoryError):
        raise ComputeHordeValidationError(f"{directory} is not a folder", field="directory") from None
    try:
        _check_free(names, folder, directory, overwrite=overwrite)
        for name, data in zip(names, contents.values(), strict=True):
            _write(name, data, folder, overwrite=overwrite)
    finally:
        os.close(folder)
    return [directory / name for name in names]


def _names(paths: Iterable[str]) -> list[str]:
    """One name for each path, all different, also where letters differ by case only."""
    taken: set[str] = set()
    last: dict[str, int] = {}
    names = []
    for path in paths:
        plain = _clean(path)
        stem, dot, suffix = plain.rpartition(".") if plain.rfind(".") > 0 else (plain, "", "")
        name, number = plain, last.get(plain.casefold(), 1)
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}{dot}{suffix}"
        last[plain.casefold()] = number
        taken.add(name.casefold())
        names.append(name)
    return names


def _clean(path: str) -> str:
    last = path.rstrip("/").rpartition("/")[2]
    name = "".join(char if char.isprintable() and char not in '\\:*?"<>|' else "_" for char in last)
    name = name.encode("utf-8", "replace")[:MAX_NAME_BYTES].decode("utf-8", "ignore").strip()
    return name if name.strip(".") else "artifact"


def _check_free(names: list[str], folder: int, directory: Path, *, overwrite: bool) -> None:
    for name in names:
        try:
            kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(kind) or not overwrite:
            hint = "Choose another folder." if stat.S_ISDIR(kind) else "Choose another folder, or overwrite=True."
            raise ComputeHordeValidationError(f"{directory / name} exists", field="directory", hint=hint)


def _write(name: str, data: bytes, folder: int, *, overwrite: bool) -> None:
    """Write beside it and put it in place, so that a link of that name is replaced and never written through."""
    target = f".{name}.{os.urandom(4).hex()}" if overwrite else name
    descriptor = os.open(target, _WRITE_NEW, 0o644, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        if overwrite:
            os.replace(target, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(target, dir_fd=folder)
        raise

"""The output folder as a zip archive: regular files only, no link followed."""

import contextlib
import os
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from compute_horde.executor import confined
from compute_horde.executor.errors import JobFailure, failure

MAX_DEPTH = 100
MAX_NOTICES = 100
"""About folders that were left out; there may be millions."""
_CHUNK = 256 * 1024


def zip_folder(
    folder: Path, target: BinaryIO, *, leave_out: frozenset[str], entries: int, size: int, stop: threading.Event
) -> list[str]:
    """Write the archive; a line for each thing skipped. ``size``: of the archive, in bytes.

    :raises JobFailure: ``output_too_large``.
    """
    notices: list[str] = []
    written = 0
    with (
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        confined.folder(folder) as top,
    ):
        for path, parent in files(top, (), notices, stop):
            if path in leave_out or stop.is_set():
                continue
            if written >= entries:
                raise failure("output_too_large", f"The output folder has more than {entries} files.")
            if why := _add(archive, path, parent, target, size, stop):
                notices.append(f"The output {_shown(path)} was left out: {why}.")
            else:
                written += 1
    if target.tell() > size:
        raise _too_large(size)
    return notices


def files(
    folder: int, parts: tuple[str, ...], notices: list[str], stop: threading.Event
) -> Iterator[tuple[str, int]]:
    """Paths below the top, folders apart, with the descriptor of their folder, in order.

    Once ``stop`` is set no folder is entered any more: a million empty ones would never come to an end.
    """
    with os.scandir(folder) as found:
        entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    for name, is_folder in entries:
        path = (*parts, name)
        if not is_folder:
            yield "/".join(path), folder
        elif (over := stop.is_set()) or len(path) >= MAX_DEPTH:
            if len(notices) < MAX_NOTICES:
                why = "the time was over" if over else "it lies too deep"
                notices.append(f"The output {_shown('/'.join(path))} was left out: {why}.")
        else:
            with contextlib.suppress(OSError), _inside(folder, name) as inner:
                yield from files(inner, path, notices, stop)


@contextlib.contextmanager
def _inside(parent: int, name: str) -> Iterator[int]:
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield inner
    finally:
        os.close(inner)


def _add(
    archive: zipfile.ZipFile, path: str, parent: int, target: BinaryIO, size: int, stop: threading.Event
) -> str | None:
    """Add one file, or say why not."""
    try:
        path.encode()
        descriptor = confined.read_at(parent, path.rpartition("/")[2])
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except OSError:
        return "only regular files are taken"
    with (
        os.fdopen(descriptor, "rb") as source,
        archive.open(_info(path, descriptor), "w", force_zip64=True) as out,
    ):
        while (chunk := source.read(_CHUNK)) and not stop.is_set():
            out.write(chunk)
            if target.tell() > size:
                raise _too_large(size)
    return None


def _info(path: str, descriptor: int) -> zipfile.ZipInfo:
    status = os.fstat(descriptor)
    moment = time.gmtime(min(max(status.st_mtime, 315_532_800), 4_354_819_198))[:6]  # zip knows 1980 to 2107
    info = zipfile.ZipInfo(path, date_time=(moment[0], *moment[1:6]))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | (status.st_mode & 0o777)) << 16
    return info


def _too_large(size: int) -> JobFailure:
    return failure("output_too_large", f"The archive of the outputs is larger than {size} bytes.", limit=size)


def _shown(path: str) -> str:
    return repr(path.encode("utf-8", "replace").decode()[:200])

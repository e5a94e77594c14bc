"""Unpacking an archive that somebody hostile may have made."""

import os
import stat
import struct
import threading
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from compute_horde.executor import confined
from compute_horde.executor.errors import JobFailure, failure
from compute_horde.protocol.paths import path_problem

_CHUNK = 256 * 1024
_MAX_DIRECTORY_BYTES = 4 * 1024 * 1024  # of the archive's index, which zipfile reads into memory whole
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


class ZipLimits(NamedTuple):
    """``size``: all files together, unpacked, in bytes."""

    entries: int
    size: int


class _Stopped(Exception):  # noqa: N818
    """Nobody waits for the archive any more."""


def unzip(file: BinaryIO, folder: Path, limits: ZipLimits, stop: threading.Event) -> None:
    """Unpack regular files and folders; what is there already is overwritten.

    :raises JobFailure: ``volume_not_zip``, ``volume_zip_unsafe``, ``volume_too_large``, ``volume_invalid``.
    """
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(entries, limits)
            _unpack(archive, entries, folder, limits.size, stop)
    except _Stopped:
        return
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, ValueError):
        raise failure("volume_not_zip", "The volume is not a zip archive that can be unpacked.") from None
    except OSError as error:
        raise failure("volume_invalid", f"The volume cannot be unpacked: {error.strerror}.") from None


def _check_directory(file: BinaryIO) -> None:
    """Refuse an archive whose index alone would fill the memory."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 65_536 - 22 - 20))
    tail = file.read()
    for at in {len(tail) - 22, tail.rfind(_END)}:
        if at < 0 or tail[at : at + 4] != _END or len(tail) < at + 22:
            continue
        declared = max(struct.unpack_from("<L", tail, at + 12)[0] % 0xFFFFFFFF, _size64(file, tail, at))
        if declared > _MAX_DIRECTORY_BYTES:
            raise failure("volume_zip_unsafe", "The archive has too many entries.")


def _size64(file: BinaryIO, tail: bytes, end: int) -> int:
    """The index's size by the 64-bit end record, 0 where there is none."""
    if end < 20 or tail[end - 20 : end - 16] != _LOCATOR64:
        return 0
    file.seek(struct.unpack_from("<Q", tail, end - 12)[0] % (1 << 63))
    record = file.read(56)
    if len(record) < 56 or record[:4] != _END64:
        return 0
    return int(struct.unpack_from("<Q", record, 40)[0])


def _check_entries(entries: list[zipfile.ZipInfo], limits: ZipLimits) -> None:
    if len(entries) > limits.entries:
        text = f"The archive has more than {limits.entries} entries."
        raise failure("volume_zip_unsafe", text, entries=len(entries))
    if sum(entry.file_size for entry in entries) > limits.size:
        raise _too_large(limits.size)
    for entry in entries:
        if why := _entry_problem(entry):
            raise failure("volume_zip_unsafe", f"The archive's entry {entry.orig_filename[:100]!r} {why}.")


def _entry_problem(entry: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    name = _clean(entry.orig_filename)
    return None if name == "" else path_problem(name, allow_trailing_slash=True)


def _clean(name: str) -> str:
    """Some programs write every name with a leading ``./``."""
    return name.removeprefix("./")


def _unpack(
    archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], folder: Path, room: int, stop: threading.Event
) -> None:
    limit = room
    for entry in entries:
        name = _clean(entry.orig_filename)
        if entry.is_dir() or not name:
            with confined.folder(folder, tuple(part for part in name.split("/") if part), create=True):
                continue
        with archive.open(entry) as source, os.fdopen(confined.write(folder, name), "wb") as target:
            while chunk := source.read(_CHUNK):
                room -= len(chunk)
                if room < 0:
                    raise _too_large(limit)
                if stop.is_set():
                    raise _Stopped
                target.write(chunk)


def _too_large(limit: int) -> JobFailure:
    return failure("volume_too_large", f"The archive holds more than {limit} bytes.", limit=limit)

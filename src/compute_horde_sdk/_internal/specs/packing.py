"""Local files and folders, and the zip that carries them: the same bytes for the same files."""

import io
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from compute_horde.protocol.paths import path_problem
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError

MAX_INLINE_BYTES = 20 * 1024 * 1024
"""Of one inline volume. Our facilitator takes 32 MiB of JSON; one of the existing network about 2.5 MiB."""

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""Of all files of a folder together, before they are packed."""

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
FILE_MODE, PROGRAM_MODE, FOLDER_MODE = 0o100644, 0o100755, 0o040755
_PIECE = 1024 * 1024


def too_large(what: str, field: str = "contents") -> ComputeHordeValidationError:
    """The refusal of what should not travel inside the job."""
    return ComputeHordeValidationError(
        f"{what} is larger than {MAX_INLINE_BYTES // 1024**2} MiB, too large to travel inside the job",
        field=field,
        hint="Put it where executors can fetch it, and use HTTPInputVolume or HuggingfaceInputVolume.",
    )


def is_zip(data: bytes) -> bool:
    return data.startswith(ZIP_MAGIC) and zipfile.is_zipfile(io.BytesIO(data))


def zip_of(files: Mapping[str, bytes], *, compress: bool) -> bytes:
    """A zip of these files, by path."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, contents in files.items():
            archive.writestr(_entry(name, FILE_MODE, compress=compress), contents)
    return target.getvalue()


def read_path(path: Path) -> bytes:
    """A file's bytes, or a zip of a folder.

    :raises ComputeHordeValidationError: see ``InlineInputVolume.from_path``.
    """
    try:
        if path.is_dir():
            return _zip_of_folder(path)
        if not path.exists():
            raise ComputeHordeValidationError(f"there is no file or folder {path}", field="path")
        if not path.is_file():
            raise ComputeHordeValidationError(f"{path} is neither a file nor a folder", field="path")
        with path.open("rb") as file:
            data = file.read(MAX_INLINE_BYTES + 1)
    except OSError as error:
        raise ComputeHordeValidationError(f"{path} cannot be read: {error}", field="path") from None
    except RecursionError:
        raise ComputeHordeValidationError(f"{path} is nested too deeply", field="path") from None
    if len(data) > MAX_INLINE_BYTES:
        raise too_large(str(path), "path")
    return data


def _zip_of_folder(folder: Path) -> bytes:
    target, room = io.BytesIO(), MAX_UNPACKED_BYTES
    with zipfile.ZipFile(target, "w") as archive:
        for name, entry in _below(folder, ""):
            if entry.is_dir():
                archive.writestr(_entry(name + "/", FOLDER_MODE), b"")
            else:
                room -= _add_file(archive, name, Path(entry.path), room)
            if target.tell() > MAX_INLINE_BYTES or room < 0:
                raise too_large(str(folder), "path")
    return target.getvalue()


def _add_file(archive: zipfile.ZipFile, name: str, path: Path, room: int) -> int:
    """The file's size; larger than ``room`` when not all of it was added."""
    size = 0
    with open(path, "rb", opener=_without_links) as file:
        mode = os.fstat(file.fileno()).st_mode
        entry = _entry(name, PROGRAM_MODE if mode & 0o100 else FILE_MODE, compress=True)
        with archive.open(entry, "w") as packed:
            while size <= room and (piece := file.read(_PIECE)):
                packed.write(piece)
                size += len(piece)
    return size


def _below(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below, folders before what is in them, in the order of the names."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = prefix + entry.name
        if why := path_problem(name) or _kind_problem(entry):
            raise ComputeHordeValidationError(f"{entry.path!r} cannot be sent: it {why}", field="path")
        yield name, entry
        if entry.is_dir():
            yield from _below(Path(entry.path), name + "/")


def _kind_problem(entry: os.DirEntry[str]) -> str | None:
    if entry.is_symlink():
        return "must not be a link; links are not followed"
    if not entry.is_file() and not entry.is_dir():
        return "must be a file or a folder"
    return None


def _without_links(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # pragma: no cover - exchanged since it was listed
        os.close(descriptor)
        raise OSError(f"{path} is no file any more")
    return descriptor


def _entry(name: str, mode: int, *, compress: bool = False) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    entry.external_attr = mode << 16
    return entry

"""Files inside a folder that somebody hostile may have filled: no link is followed, nothing outside is reached."""

import contextlib
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class NotRegular(OSError):  # noqa: N818 - says what was found
    """There is something, but not a regular file: a link, a folder, a FIFO, a device, a socket."""


@contextlib.contextmanager
def folder(root: Path, parts: tuple[str, ...] = (), *, create: bool = False) -> Iterator[int]:
    """A descriptor of a folder below ``root``, opened one component at a time.

    :raises OSError: a component is missing, a link, or not a folder.
    """
    current = os.open(root, _DIR)
    try:
        for part in parts:
            deeper = _enter(current, part, create)
            os.close(current)
            current = deeper
        yield current
    finally:
        os.close(current)


def _enter(parent: int, name: str, create: bool) -> int:
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o777, dir_fd=parent)
    return os.open(name, _DIR, dir_fd=parent)


def read_at(parent: int, name: str) -> int:
    """A descriptor of a regular file, for reading; never blocks. :raises NotRegular, OSError:"""
    try:
        descriptor = os.open(name, _READ, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise NotRegular(error.errno, "not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(errno.EINVAL, "not a regular file")
    return descriptor


def read(root: Path, relative_path: str) -> int:
    """Like :func:`read_at`, of a path below ``root``. A link or non-folder on the way is :class:`NotRegular`."""
    *parents, name = relative_path.split("/")
    try:
        with folder(root, tuple(parents)) as parent:
            return read_at(parent, name)
    except NotADirectoryError as error:
        raise NotRegular(error.errno, "a component of the path is not a folder") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegular(error.errno, "a component of the path is a link") from None
        raise


def write(root: Path, relative_path: str) -> int:
    """A descriptor of a new or emptied file below ``root``; folders are made. :raises OSError:"""
    *parents, name = relative_path.split("/")
    with folder(root, tuple(parents), create=True) as parent:
        return os.open(name, _WRITE, 0o666, dir_fd=parent)


def remove(root: Path, relative_path: str) -> None:
    """Delete a file below ``root``. :raises OSError:"""
    *parents, name = relative_path.split("/")
    with folder(root, tuple(parents)) as parent:
        os.unlink(name, dir_fd=parent)


def remove_tree(path: Path) -> None:
    """Delete a folder of any depth with a handful of descriptors: subfolders are first moved up to the top."""
    try:
        with folder(path) as top:
            waiting = [""]
            fresh = (f".{secrets.token_hex(8)}-{number}" for number in itertools.count())
            while waiting:
                name = waiting.pop()
                waiting += _empty(top, name, fresh)
                if name:
                    os.rmdir(name, dir_fd=top)
        path.rmdir()
    except FileNotFoundError:
        return


def _empty(top: int, name: str, fresh: Iterator[str]) -> list[str]:
    """Delete the files of one folder and move its subfolders to ``top``; their new names."""
    moved = []
    current = os.open(name or ".", _DIR, dir_fd=top)
    try:
        with os.scandir(current) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for entry, is_folder in entries:
            if is_folder:
                moved.append(next(fresh))
                os.rename(entry, moved[-1], src_dir_fd=current, dst_dir_fd=top)
            else:
                os.unlink(entry, dir_fd=current)
    finally:
        os.close(current)
    return moved

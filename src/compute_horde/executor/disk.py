"""How much a job has written, and stopping it when that is too much."""

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from compute_horde.executor.errors import failure
from compute_horde.executor.runtime import RunningContainer

INTERVAL_SECONDS = 0.5
_PER_ENTRY = 256  # a million empty files are not free either
_UNCOUNTABLE = 1 << 62
_FILES_RESERVE = 0.01  # of all that a file system can hold; some set no limit, and say 0


def tree_bytes(root: Path) -> int:
    """Bytes that a folder occupies, links not followed. A path too long to be looked at counts as boundless."""
    total, waiting = 0, list[_Folder]()
    try:
        waiting.append(_Folder(str(root), root.lstat()))
    except OSError:
        return 0
    while waiting:
        folder = waiting.pop()
        try:
            with _opened(folder) as descriptor, os.scandir(descriptor) as found:
                for entry in found:
                    total += _entry_bytes(entry, folder.path, waiting)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return _UNCOUNTABLE
    return total


class _Folder(NamedTuple):
    """``seen``: what it was when it was found."""

    path: str
    seen: os.stat_result


@contextlib.contextmanager
def _opened(folder: _Folder) -> Iterator[int]:
    """A job can put a link in its place, or above it, and have all of the machine counted instead.

    :raises OSError: for one, there is something else now.
    """
    descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not os.path.samestat(os.fstat(descriptor), folder.seen):
            raise FileNotFoundError(errno.ENOENT, "there is something else now")
        yield descriptor
    finally:
        os.close(descriptor)


def _entry_bytes(entry: "os.DirEntry[str]", folder: str, waiting: list[_Folder]) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if stat.S_ISDIR(status.st_mode):
        waiting.append(_Folder(f"{folder}/{entry.name}", status))
    return status.st_blocks * 512 + _PER_ENTRY


def _folders_bytes(folders: Iterable[Path]) -> int:
    return sum(tree_bytes(folder) for folder in folders)


def free_bytes(folder: "os.PathLike[str]") -> int:
    """What the file system of ``folder`` has left for us."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


async def look(container: RunningContainer, folders: tuple[Path, ...], limit: int) -> None:
    """:raises JobFailure: ``disk_full``: the job has written more than ``limit`` bytes."""
    used = await asyncio.to_thread(_folders_bytes, folders) + await container.written_bytes()
    if used > limit:
        raise failure("disk_full", f"The job wrote more than its {limit} bytes of disk.", limit=limit)


async def watch(container: RunningContainer, folders: tuple[Path, ...], limit: int, reserve: int) -> None:
    """Look again and again until cancelled; at the room beside it, since counting many files takes a while.

    :raises JobFailure: ``disk_full``: see :func:`look` and :func:`require_room`.
    """
    looking = asyncio.create_task(_repeat(lambda: look(container, folders, limit)))
    room = asyncio.create_task(_repeat(lambda: require_room(folders[0], reserve)))
    both = {looking, room}
    try:
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        done.pop().result()
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def require_room(folder: Path, reserve: int) -> None:
    """Files deleted while open do not show in a folder, and empty ones use a disk up as well.

    :raises JobFailure: ``disk_full``: less than ``reserve`` bytes are left, or hardly a file more can be made.
    """
    if await asyncio.to_thread(_is_full, folder, reserve):
        raise failure("disk_full", "The job was stopped: the executor's disk is nearly full.")


def _is_full(folder: Path, reserve: int) -> bool:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize < reserve or found.f_favail < found.f_files * _FILES_RESERVE


async def _repeat(once: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        await once()

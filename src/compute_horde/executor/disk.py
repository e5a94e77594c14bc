"""How much a job has written, and stopping it when that is too much."""

import asyncio
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from compute_horde.executor.errors import failure
from compute_horde.executor.runtime import RunningContainer

INTERVAL_SECONDS = 0.5
_PER_ENTRY = 256  # a million empty files are not free either
_UNCOUNTABLE = 1 << 62


def tree_bytes(root: Path) -> int:
    """Bytes that a folder occupies, links not followed. A path too long to be looked at counts as boundless."""
    total, waiting = 0, [str(root)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    total += _entry_bytes(entry, waiting)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno == 36:  # ENAMETOOLONG
                return _UNCOUNTABLE
    return total


def _entry_bytes(entry: "os.DirEntry[str]", waiting: list[str]) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if stat.S_ISDIR(status.st_mode):
        waiting.append(entry.path)
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
    """Look again and again until cancelled.

    :raises JobFailure: ``disk_full``: see :func:`look`, or the job left the machine less than ``reserve`` (files
        deleted while open do not show in a folder).
    """
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        await look(container, folders, limit)
        if await asyncio.to_thread(free_bytes, folders[0]) < reserve:
            raise failure("disk_full", "The job was stopped: the executor's disk is nearly full.")

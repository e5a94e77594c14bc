"""Evidence for cross-validation: the SHA-256 of what the job left below ``/output``. It is hostile, as ever."""

import asyncio
import hashlib
import os
import threading
from pathlib import Path
from typing import NamedTuple

from compute_horde.executor import confined
from compute_horde.executor.outputs import files
from compute_horde.executor.patience import in_thread

MAX_FILES = 1000
MAX_PATH_CHARS = 1024 * 1024
"""Of all paths together."""

OUR_FILES = frozenset({"stdout.txt", "stderr.txt"})
"""Written by the executor, cut at its own limit, so no evidence of what the job wrote."""

_CHUNK = 256 * 1024
_SHOWN = 20
_COUNTED = 10_000


class _Stopped(Exception):  # noqa: N818
    """The time was over in the middle of a file."""


class Hashes(NamedTuple):
    """``by_path``: in hex. ``notices``: what was left out and why."""

    by_path: dict[str, str]
    notices: list[str]


class Hashing:
    """The hashes of a folder, worked out beside other things until :meth:`result` is asked for."""

    def __init__(self, folder: Path) -> None:
        self._stop = threading.Event()
        self._work = asyncio.create_task(in_thread(self._stop, hash_folder, folder, self._stop))

    async def result(self, within_s: float) -> Hashes:
        """What there is after at most ``within_s``."""
        await asyncio.wait({self._work}, timeout=within_s)
        self._stop.set()
        return await self._work

    async def close(self) -> None:
        """Give up. Nothing reads the folder any more afterwards."""
        self._work.cancel()
        await asyncio.wait({self._work})
        if not self._work.cancelled():
            self._work.exception()


def hash_folder(folder: Path, stop: threading.Event) -> Hashes:
    """Hash each regular file, in order of the paths; links and devices are passed over.

    A folder that the job has closed to the executor is no failure: the job need not upload anything from it.
    """
    try:
        with confined.folder(folder) as top:
            return _hash_all(top, stop)
    except OSError as error:
        return Hashes({}, [f"Not hashed, since the folder of the outputs cannot be read: {error.strerror}."])


def _hash_all(top: int, stop: threading.Event) -> Hashes:
    found, notices = dict[str, str](), list[str]()
    left, unreadable = list[str](), list[str]()
    why, room = "", MAX_PATH_CHARS
    for path, parent in files(top, (), notices, stop):
        if path in OUR_FILES:
            continue
        if len(left) + len(unreadable) >= _COUNTED:
            break
        if why := why or _full(len(found), room - len(path), stop):
            left.append(path)
            continue
        try:
            found[path] = _digest(path, parent, stop)
            room -= len(path)
        except confined.NotRegular:
            continue
        except _Stopped:
            left.append(path)
        except (UnicodeEncodeError, OSError):
            unreadable.append(path)
    if unreadable:
        notices.append(_notice(unreadable, "they cannot be read"))
    if left:
        notices.append(_notice(left, why or _OUT_OF_TIME))
    return Hashes(found, notices)


_OUT_OF_TIME = "the time for uploads was over"


def _full(count: int, room: int, stop: threading.Event) -> str:
    if stop.is_set():
        return _OUT_OF_TIME
    if count >= MAX_FILES:
        return f"only {MAX_FILES} files are"
    return "" if room > 0 else "all paths together are too long"


def _digest(path: str, parent: int, stop: threading.Event) -> str:
    """:raises NotRegular, OSError, UnicodeEncodeError, _Stopped:"""
    path.encode()
    digest = hashlib.sha256()
    with os.fdopen(confined.read_at(parent, path.rpartition("/")[2]), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            if stop.is_set():
                raise _Stopped
            digest.update(chunk)
    return digest.hexdigest()


def _notice(left: list[str], why: str) -> str:
    shown = ", ".join(repr(path.encode("utf-8", "replace").decode()[:200]) for path in left[:_SHOWN])
    more = len(left) - _SHOWN
    count = f" and {'over ' if len(left) >= _COUNTED else ''}{more} more" if more > 0 else ""
    return f"Not hashed, since {why}: {shown}{count}."

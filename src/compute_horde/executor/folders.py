"""The folders of one job, and how an executor knows which jobs are alive on this machine."""

import contextlib
import errno
import fcntl
import os
import re
import stat
from pathlib import Path

from compute_horde.executor.confined import remove_tree
from compute_horde.executor.state import STATE, load_state
from compute_horde.executor.timing import Clocks

TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
SHARED = ("volume", "output", "specs", "artifacts")
PRIVATE = ("logs", "transfer")
STANDBY_SECONDS = 0.1
"""How often a stand-by looks whether the other is gone."""


def prepare_work_dir(folder: Path) -> None:
    """Make the folder of all jobs, closed to everybody else.

    :raises PermissionError: somebody else owns it, so that its contents cannot be trusted.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"the work folder {folder} belongs to somebody else; set work_dir to another one")
    folder.chmod(0o700)


class JobFolders:
    """One job's folders. Those in :data:`SHARED` are mounted, and writable for any user in the container.

    A lock on the folder's file ``lock`` says that the job is alive; it goes away with the process.
    """

    def __init__(self, work_dir: Path, token: str) -> None:
        if not TOKEN.fullmatch(token):
            raise ValueError("the executor's token is not usable as a name")
        self.token, self.root = token, work_dir / token
        self.volume, self.output, self.specs, self.artifacts = (self.root / name for name in SHARED)
        self.logs, self.transfer = (self.root / name for name in PRIVATE)
        self._lock = -1

    async def claim(self, clocks: Clocks) -> bool:
        """Lock the folder, made if need be. While another has the job, wait; False when that one has ended it.

        :raises OSError: the folder cannot be made or locked.
        """
        seen = False
        while True:
            if not seen:
                self.root.mkdir(mode=0o700, exist_ok=True)
            try:
                self._lock = _lock(self.root / "lock", 0 if seen else os.O_CREAT)
            except FileNotFoundError:
                if seen:
                    return False
            except BlockingIOError:  # a clean-up locks folders as well, but only those without a state
                seen = seen or (self.root / STATE).exists()
                await clocks.sleep_until(clocks.elapsed() + STANDBY_SECONDS)
            else:
                return True

    def lock(self, flags: int = 0) -> None:
        """Lock what is there. :raises BlockingIOError, FileNotFoundError:"""
        self._lock = _lock(self.root / "lock", flags)

    def create(self) -> None:
        """Make what is missing. :raises BlockingIOError: another process runs this very job."""
        if self._lock < 0:
            self.root.mkdir(mode=0o700, exist_ok=True)
            self.lock(os.O_CREAT)
        for name in PRIVATE:
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        for name in SHARED:
            (self.root / name).mkdir(exist_ok=True)
            (self.root / name).chmod(0o777)

    def empty_inputs(self) -> None:
        """Take back what an interrupted download has left."""
        for folder in (self.volume, self.transfer):
            remove_tree(folder)
        self.create()

    def open_up(self) -> None:
        """Let any user in the container use what was put into the volume."""
        for parent, folders, files in os.walk(self.volume):
            for name in (*folders, *files):
                path = Path(parent, name)
                if not path.is_symlink():
                    path.chmod(0o777)

    def show_logs(self) -> None:
        """Put the logs into the output folder under their names, whatever the job has left there.

        A folder is only moved away: to delete what may be in it takes long.
        """
        for name in ("stdout.txt", "stderr.txt"):
            target = self.output / name
            if target.is_dir() and not target.is_symlink():
                target.rename(self.transfer / f"was-{name}")
            (self.logs / name).replace(target)

    def empty(self) -> None:
        """Delete all but what the last message needs. :raises OSError: files of another user."""
        for name in (*SHARED, *PRIVATE):
            remove_tree(self.root / name)

    def remove(self) -> None:
        """Delete everything. :raises OSError: files of another user, when this is not root."""
        if self._lock < 0:
            return
        try:
            remove_tree(self.root)
        finally:
            self.release()

    def release(self) -> None:
        """Leave everything to the next who claims it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _lock(path: Path, flags: int = 0) -> int:
    """:raises BlockingIOError: another has it. :raises FileNotFoundError: it was deleted with its folder."""
    descriptor = os.open(path, os.O_RDWR | flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino != path.stat(follow_symlinks=False).st_ino:
            raise FileNotFoundError(errno.ENOENT, "the lock belongs to a folder that is gone")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def kept_tokens(work_dir: Path, wall: float) -> frozenset[str]:
    """The tokens of jobs that some process of this machine runs in ``work_dir``, or may still take over."""
    kept = set()
    for root in work_dir.iterdir():
        try:
            os.close(_lock(root / "lock"))
        except BlockingIOError:
            kept.add(root.name)
        except OSError:
            continue
        else:
            if _is_kept(root, wall):
                kept.add(root.name)
    return frozenset(kept)


def remove_dead(work_dir: Path, wall: float) -> None:
    """Delete the folders of jobs that no process runs and none may take over. Their containers must be gone."""
    for root in work_dir.iterdir():
        if TOKEN.fullmatch(root.name) and (root / "lock").exists():
            folders = JobFolders(work_dir, root.name)
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                folders.lock()
                if _is_kept(root, wall):
                    folders.release()
                else:
                    folders.remove()


def _is_kept(root: Path, wall: float) -> bool:
    state = load_state(root)
    return state is not None and wall < state.keep_until

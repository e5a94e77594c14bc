"""The folder that a local horde lives in: keys, databases, the chain file, and who holds it."""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compute_horde.chain.keys import make_wallet
from compute_horde.chain.port import Directory, MinerEndpoint
from compute_horde.chain.static import ChainFileError, StaticChain

HOTKEY_NAME = "default"


class HomeError(RuntimeError):
    """The folder cannot be used. The text says why and what to do."""


def default_home() -> Path:
    """``$XDG_DATA_HOME/compute-horde``, or the usual place for it."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "compute-horde"


@dataclass(frozen=True)
class Announcement:
    """How to reach a running horde: the one line of ``horde up --json``."""

    facilitator_url: str
    validator_hotkey: str
    wallet_path: str
    wallet_name: str
    wallet_hotkey: str
    pid: int

    def to_json(self) -> str:
        return json.dumps(self.__dict__)


class Home:
    """One local horde's folder. Only one process may hold it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def wallets(self) -> Path:
        return self.path / "wallets"

    @property
    def chain_file(self) -> Path:
        return self.path / "chain.toml"

    @property
    def announcement_file(self) -> Path:
        return self.path / "horde.json"

    def database_url(self, service: str) -> str:
        return f"sqlite+aiosqlite:///{self.path / (service + '.db')}"

    def hold(self) -> None:
        """Make the folder and lock it. :raises HomeError: another process holds it, or it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise HomeError(f"cannot use {self.path}: {error.strerror}; choose another --dir") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise HomeError(f"another horde is running on {self.path}; stop it or choose another --dir") from None

    def release(self) -> None:
        """Let go; doing so twice is fine."""
        self.announcement_file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def key(self, name: str) -> Any:
        """The hotkey of the wallet ``name``, made on first use."""
        return make_wallet(self.wallets, name, HOTKEY_NAME)

    def open_chain(self, user: str, validator: str) -> StaticChain:
        """The chain file, made on first use; entries that the operator added stay."""
        try:
            known = StaticChain(self.chain_file).directory() if self.chain_file.exists() else Directory()
        except ChainFileError as error:
            raise HomeError(f"{error}; mend the file or remove it") from None
        self.write_chain(
            Directory(
                validators=known.validators | {validator},
                users=known.users | {user},
                signers=known.signers | {user},
                miners=known.miners,
            )
        )
        return StaticChain(self.chain_file)

    def place_miner(self, chain: StaticChain, miner: MinerEndpoint) -> None:
        """Write where the horde's own miner listens now; other miners in the file stay."""
        known = chain.directory()
        others = tuple(entry for entry in known.miners if entry.hotkey != miner.hotkey)
        self.write_chain(known.model_copy(update={"miners": (miner, *others)}))

    def write_chain(self, directory: Directory) -> None:
        fresh = self.chain_file.with_suffix(".new")
        fresh.write_text(_chain_toml(directory))
        fresh.replace(self.chain_file)

    def announce(self, announcement: Announcement) -> None:
        """Let ``horde run`` on this machine find the horde without being told."""
        self.announcement_file.write_text(announcement.to_json() + "\n")


def read_announcement(home: Path) -> Announcement | None:
    """What a running horde in this folder announced, or None."""
    try:
        return Announcement(**json.loads((home / "horde.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _chain_toml(directory: Directory) -> str:
    lines = ["# Who may take part. Edit freely: a running horde re-reads this file when it changes.", ""]
    lines += [
        f"{name} = {json.dumps(sorted(getattr(directory, name)))}" for name in ("validators", "users", "signers")
    ]
    for miner in directory.miners:
        lines += ["", "[[miners]]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in miner.model_dump().items()]
    return "\n".join(lines) + "\n"

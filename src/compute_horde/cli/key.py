"""The key that signs: a wallet's hotkey, or a key file."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bittensor_wallet

from compute_horde.cli.terminal import fail

DEFAULT_WALLETS = "~/.bittensor/wallets"
DEFAULT_HOTKEY = "default"


@dataclass(frozen=True)
class KeySource:
    """Where a key is. ``hint``: what to look at when it is not there."""

    file: Path
    hint: str

    @classmethod
    def of_wallet(cls, path: str, name: str, hotkey: str) -> "KeySource":
        """The hotkey of an ordinary Bittensor wallet."""
        file = Path(path).expanduser() / name / "hotkeys" / hotkey
        return cls(file, "Check --wallet-path, --wallet-name and --wallet-hotkey.")

    @classmethod
    def of_file(cls, file: str) -> "KeySource":
        """A hotkey's file by itself, as wallets keep it."""
        return cls(
            Path(file).expanduser(), "Check --key-file: the file of one hotkey, as Bittensor wallets keep it."
        )

    def load(self) -> Any:
        """The key; it has ``ss58_address`` and ``sign(bytes)``. Exits with 2 where it cannot be used."""
        if not self.file.is_file():
            fail(f"no hotkey at {self.file}", self.hint, 2)
        try:
            kept = bittensor_wallet.Keyfile(str(self.file))
            locked = kept.is_encrypted() and not sys.stdin.isatty()
            key = None if locked else kept.keypair
        except Exception as error:  # the library's errors have no common base
            fail(f"the hotkey at {self.file} cannot be used: {error}", self.hint, 2)
        if locked:
            fail(f"the hotkey at {self.file} needs a password, and there is no terminal to ask at", code=2)
        return key


def is_address(text: str) -> bool:
    """Whether ``text`` is an SS58 address."""
    try:
        bittensor_wallet.Keypair(ss58_address=text)
    except ValueError:
        return False
    return True

"""Hotkeys: verify signatures, load and make ordinary Bittensor wallets."""

from pathlib import Path
from typing import Any

import bittensor_wallet

SS58_FORMAT = 42


class WalletError(ValueError):
    """A wallet cannot be loaded or made. The text says which file and why."""


def verify(ss58: str, data: bytes, signature: bytes) -> bool:
    """A :data:`~compute_horde.protocol.signing.Verifier` for sr25519 hotkeys. Never raises."""
    try:
        return bool(bittensor_wallet.Keypair(ss58_address=ss58).verify(data, signature))
    except Exception:
        return False


def ss58_of(public_key: bytes) -> str:
    """The ss58 address (format 42) of a 32-byte public key. :raises ValueError: it is no such key."""
    if len(public_key) != 32:
        raise ValueError("a public key has 32 bytes")
    return str(bittensor_wallet.Keypair(public_key="0x" + public_key.hex(), ss58_format=SS58_FORMAT).ss58_address)


def public_key_of(ss58: str) -> bytes:
    """The 32 bytes behind an ss58 address. :raises ValueError: it is no address."""
    try:
        return bytes(bittensor_wallet.Keypair(ss58_address=ss58).public_key or b"")
    except Exception as error:
        raise ValueError(f"{ss58[:64]!r} is not an ss58 address: {error}") from None


def load_hotkey(path: Path, name: str, hotkey: str) -> Any:
    """The hotkey of an ordinary wallet; it has ``ss58_address`` and ``sign(bytes)``.

    :raises WalletError: there is no such wallet, or it needs a password.
    """
    file = path.expanduser() / name / "hotkeys" / hotkey
    if not file.is_file():
        raise WalletError(f"no hotkey at {file}; check the wallet's path, name and hotkey name")
    try:
        return bittensor_wallet.Wallet(name, hotkey, str(path.expanduser())).hotkey
    except Exception as error:
        raise WalletError(f"the hotkey at {file} cannot be loaded: {error}") from None


def make_wallet(path: Path, name: str, hotkey: str) -> Any:
    """The hotkey of the wallet at this place; the wallet is made, without a password, where there is none."""
    if not (path / name / "hotkeys" / hotkey).is_file():
        path.mkdir(parents=True, exist_ok=True)
        wallet = bittensor_wallet.Wallet(name, hotkey, str(path))
        if not (path / name / "coldkey").is_file():
            wallet.create_new_coldkey(use_password=False, overwrite=False, suppress=True)
        wallet.create_new_hotkey(use_password=False, overwrite=False, suppress=True)
    return load_hotkey(path, name, hotkey)


def throwaway_hotkey(uri: str) -> Any:
    """A well-known key by derivation path, such as ``//Alice``. For tests: anyone can sign with it."""
    return bittensor_wallet.Keypair.create_from_uri(uri)

"""The key that signs."""

import io
from pathlib import Path

import pytest
import typer
from bittensor_wallet import Keyfile, Wallet

from compute_horde.cli.key import KeySource, is_address


@pytest.fixture
def wallet(tmp_path: Path) -> Wallet:
    made = Wallet("w", "h", str(tmp_path))
    made.create_new_hotkey(use_password=False, overwrite=False, suppress=True)
    return made


def test_a_wallets_hotkey_and_its_file_are_the_same_key(wallet: Wallet, tmp_path: Path) -> None:
    of_wallet = KeySource.of_wallet(str(tmp_path), "w", "h").load()
    of_file = KeySource.of_file(str(tmp_path / "w" / "hotkeys" / "h")).load()
    assert of_wallet.ss58_address == of_file.ss58_address == wallet.hotkey.ss58_address
    assert len(of_file.sign(b"data")) == 64


def test_keys_that_cannot_be_used(
    wallet: Wallet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, locked = tmp_path / "broken", tmp_path / "locked"
    broken.write_text("no key")
    Keyfile(str(locked)).set_keypair(wallet.hotkey, encrypt=True, overwrite=True, password="Secret-12345")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for file, says in ((tmp_path / "none", "no hotkey at"), (broken, "cannot be used"), (locked, "a password")):
        with pytest.raises(typer.Exit) as caught:
            KeySource.of_file(str(file)).load()
        assert caught.value.exit_code == 2
        assert says in capsys.readouterr().err


def test_addresses(wallet: Wallet) -> None:
    assert is_address(wallet.hotkey.ss58_address)
    assert not is_address("5F")

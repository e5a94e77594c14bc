"""The static chain is read again when it changes, and a bad edit keeps the last good one in force."""

from pathlib import Path

import pytest

from compute_horde.chain import keys
from compute_horde.chain.port import Directory
from compute_horde.chain.static import ChainFileError, FixedChain, StaticChain

GOOD = 'validators = ["v"]\nusers = ["u"]\nsigners = ["s"]\n[[miners]]\nhotkey = "m"\naddress = "h"\nport = 1\n'


def replace(path: Path, text: str) -> None:
    """As an editor does: a new file in the place of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "chain.toml"
    path.write_text(GOOD)
    return path


def test_a_change_is_seen_at_the_next_use(file: Path) -> None:
    chain = StaticChain(file)
    assert chain.directory().miners[0].port == 1
    assert chain.directory().signers == {"s"}
    replace(file, GOOD.replace('"s"', '"t"'))
    assert chain.directory().signers == {"t"}


@pytest.mark.parametrize("bad", ["validators = [", "no_such = 1", GOOD.replace("port = 1", "port = 0")])
def test_a_bad_edit_keeps_the_last_good_directory(file: Path, bad: str) -> None:
    chain = StaticChain(file)
    before = chain.directory()
    replace(file, bad)
    assert chain.directory() == before
    replace(file, GOOD.replace('"u"', '"w"'))
    assert chain.directory().users == {"w"}
    file.unlink()
    assert chain.directory().users == {"w"}


@pytest.mark.parametrize(
    ("text", "says"), [(None, "cannot read"), ("[", "not TOML"), ("miners = 1", "miners"), ("x = 1", "x")]
)
def test_a_bad_file_is_refused_at_the_start(file: Path, text: str | None, says: str) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    with pytest.raises(ChainFileError, match=says):
        StaticChain(file)


def test_a_fixed_chain_answers_what_it_was_given() -> None:
    assert FixedChain(Directory(users=frozenset({"u"}))).directory().users == {"u"}


def test_keys_verify_and_never_raise() -> None:
    alice = keys.throwaway_hotkey("//Alice")
    signature = bytes(alice.sign(b"data"))
    assert keys.verify(alice.ss58_address, b"data", signature)
    assert not keys.verify(alice.ss58_address, b"data", b"short")
    assert not keys.verify("no address", b"data", signature)
    assert keys.ss58_of(keys.public_key_of(alice.ss58_address)) == alice.ss58_address
    with pytest.raises(ValueError, match="32 bytes"):
        keys.ss58_of(b"short")
    with pytest.raises(ValueError, match="not an ss58 address"):
        keys.public_key_of("no address")


def test_a_wallet_is_made_once_and_loaded(tmp_path: Path) -> None:
    made = keys.make_wallet(tmp_path, "horde", "user")
    assert keys.make_wallet(tmp_path, "horde", "user").ss58_address == made.ss58_address
    assert keys.load_hotkey(tmp_path, "horde", "user").ss58_address == made.ss58_address
    with pytest.raises(keys.WalletError, match="no hotkey at"):
        keys.load_hotkey(tmp_path, "horde", "nobody")
    (tmp_path / "horde" / "hotkeys" / "broken").write_text("{")
    with pytest.raises(keys.WalletError, match="cannot be loaded"):
        keys.load_hotkey(tmp_path, "horde", "broken")

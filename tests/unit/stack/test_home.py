"""The folder of a local horde."""

import json
from pathlib import Path

import pytest

from compute_horde.chain.port import Directory, MinerEndpoint
from compute_horde.stack.home import Announcement, Home, HomeError, read_announcement


def test_only_one_process_holds_it(tmp_path: Path) -> None:
    first, second = Home(tmp_path), Home(tmp_path)
    first.hold()
    with pytest.raises(HomeError, match="another horde is running"):
        second.hold()
    first.release()
    second.hold()
    second.release()
    second.release()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="choose another --dir"):
        Home(tmp_path / "file" / "home").hold()


def test_keys_stay_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.key("user").ss58_address == Home(tmp_path).key("user").ss58_address
    assert home.key("user").ss58_address != home.key("validator").ss58_address


def test_what_the_operator_added_to_the_chain_file_stays(tmp_path: Path) -> None:
    home = Home(tmp_path)
    foreign = MinerEndpoint(hotkey="m2", address="10.0.0.1", port=8000)
    home.write_chain(Directory(users=frozenset({"added"}), miners=(foreign,)))
    chain = home.open_chain("user", "validator")
    home.place_miner(chain, MinerEndpoint(hotkey="m1", address="127.0.0.1", port=1))
    home.place_miner(chain, MinerEndpoint(hotkey="m1", address="127.0.0.1", port=2))
    found = chain.directory()
    assert found.users == {"added", "user"}
    assert found.signers == {"user"}
    assert found.validators == {"validator"}
    assert found.miners == (MinerEndpoint(hotkey="m1", address="127.0.0.1", port=2), foreign)


def test_a_broken_chain_file_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.chain_file.write_text("users = 3")
    with pytest.raises(HomeError, match=r"chain\.toml.*mend the file"):
        home.open_chain("user", "validator")


def test_the_announcement_is_found_while_the_horde_runs(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.hold()
    made = Announcement("http://127.0.0.1:1/", "v", "/wallets", "user", "default", 7)
    home.announce(made)
    assert read_announcement(tmp_path) == made
    assert json.loads(made.to_json())["pid"] == 7
    home.release()
    assert read_announcement(tmp_path) is None


def test_nonsense_in_the_announcement_is_no_horde(tmp_path: Path) -> None:
    (tmp_path / "horde.json").write_text('{"surprise": 1}')
    assert read_announcement(tmp_path) is None

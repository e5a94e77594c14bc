"""The profile file."""

import stat
from pathlib import Path

import pytest

from compute_horde.cli.profile import (
    Profile,
    ProfileError,
    check_name,
    profiles_file,
    read_profiles,
    write_profiles,
)

WORK = Profile("https://f.test/", "5F", key_file='/home/"me"\\ö\n\x7f\U0001f600', queue="nightly")


def test_what_is_written_is_read_again() -> None:
    assert read_profiles() == {}
    known = {"work": WORK, "home": Profile("http://a.test", "5G", "w", "h", "/wallets")}
    file = write_profiles(known)
    assert file == profiles_file()
    assert read_profiles() == known


def test_the_file_is_its_owners_only() -> None:
    file = write_profiles({})
    file.chmod(0o644)
    write_profiles({"work": WORK})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["profiles.toml"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("profiles = 3", "must be a table"),
        ("[profiles]\nwork = 3", "must be a table of texts"),
        ("[profiles.work]\nfacilitator = 3", "must be a table of texts"),
        ("[profiles.work]\nfacilitator = 'a'\nprivate_key = 'b'", "unknown keys: private_key"),
        ("[profiles.work]", "lacks facilitator and validator"),
        ("[profiles", "cannot read"),
        ("\xff", "cannot read"),
    ],
)
def test_another_file_is_explained(text: str, says: str) -> None:
    profiles_file().parent.mkdir(parents=True)
    profiles_file().write_bytes(text.encode("latin-1"))
    with pytest.raises(ProfileError, match=says):
        read_profiles()


def test_a_place_that_cannot_be_written(home: Path) -> None:
    (home / "config").write_text("a file where the folder should be")
    with pytest.raises(ProfileError, match="cannot write"):
        write_profiles({})


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 65, "a\n"])
def test_names(name: str) -> None:
    with pytest.raises(ProfileError, match="cannot name a profile"):
        check_name(name)
    assert check_name("work-2_b") == "work-2_b"

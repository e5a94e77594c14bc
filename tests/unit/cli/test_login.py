"""``horde login``, ``logout``, ``profiles``, and what they mean for the other commands."""

import json
from pathlib import Path

import bittensor_wallet
import httpx
import pytest

from compute_horde.cli.profile import Profile, profiles_file, read_profiles, write_profiles

from .conftest import Cli, Served

VALIDATOR = bittensor_wallet.Keypair.create_from_uri("//Validator").ss58_address
PLACE = ["--facilitator", "http://horde.test", "--validator", VALIDATOR]


def test_login_checks_and_keeps_a_profile(cli: Cli, fake: Served) -> None:
    done = cli("login", *PLACE, "--wallet-name", "w", "--wallet-path", "/wallets", "--queue", "q", here=False)
    assert done.exit_code == 0, done.output
    assert fake.logins == 1
    assert fake.hotkey.ss58_address in done.stdout
    assert read_profiles() == {
        "default": Profile("http://horde.test", VALIDATOR, "w", "default", "/wallets", "", "q")
    }


def test_login_prints_json(cli: Cli) -> None:
    done = cli("login", "--json", "--profile", "work", *PLACE, "--key-file", "k", here=False)
    found = json.loads(done.stdout)
    assert list(found) == [
        "profile",
        "file",
        "facilitator",
        "validator",
        "wallet_name",
        "wallet_hotkey",
        "wallet_path",
        "key_file",
        "queue",
        "hotkey",
    ]
    assert (found["profile"], found["key_file"]) == ("work", str(Path("k").absolute()))


def test_a_refused_login_keeps_nothing(cli: Cli, fake: Served) -> None:
    fake.fail("/auth/login", *[httpx.Response(403, json={"detail": "not allowed"})] * 9)
    done = cli("login", *PLACE, "--key-file", "k", here=False)
    assert done.exit_code == 77
    assert "refused" in done.stderr
    assert not profiles_file().exists()
    assert cli("login", "--no-check", *PLACE, "--key-file", "k", here=False).exit_code == 0


def test_without_a_terminal_all_has_to_be_told(cli: Cli) -> None:
    done = cli("login", here=False)
    assert done.exit_code == 2
    for option in ("--facilitator", "--validator", "--wallet-name"):
        assert option in done.stderr
    assert (
        "SS58"
        in cli("login", "--facilitator", "http://a.test", "--validator", "x", "--key-file", "k", here=False).stderr
    )
    assert cli("login", "--profile", "no name", *PLACE, "--key-file", "k", here=False).exit_code == 2


def test_a_profile_is_changed_in_what_is_told(cli: Cli) -> None:
    cli("login", *PLACE, "--key-file", "/k", here=False)
    cli("login", "--queue", "q", here=False)
    assert read_profiles()["default"] == Profile("http://horde.test", VALIDATOR, key_file="/k", queue="q")
    cli("login", "--wallet-name", "w", "--wallet-path", "/wallets", here=False)
    assert read_profiles()["default"] == Profile(
        "http://horde.test", VALIDATOR, "w", "default", "/wallets", queue="q"
    )
    cli("login", "--key-file", "/k", here=False)
    assert read_profiles()["default"].wallet_name == ""


def test_from_a_local_horde(cli: Cli, home: Path) -> None:
    announce(home / "data" / "compute-horde")
    done = cli("login", "--dir", str(home / "data" / "compute-horde"), here=False)
    assert done.exit_code == 0, done.output
    assert read_profiles()["default"] == Profile("http://local.test", VALIDATOR, "user", "default", "/wallets")


def test_on_a_terminal_it_asks(cli: Cli) -> None:
    typed = f"http://horde.test\n{VALIDATOR}\n/wallets\nw\n\n"
    done = cli("login", "--ask", here=False, input=typed)
    assert done.exit_code == 0, done.output
    assert "Facilitator URL" in done.stderr
    assert read_profiles()["default"] == Profile("http://horde.test", VALIDATOR, "w", "default", "/wallets")


def test_profiles_are_listed_and_forgotten(cli: Cli) -> None:
    assert "no profiles" in cli("profiles", here=False).stderr
    cli("login", "--profile", "work", *PLACE, "--key-file", "/k", "--queue", "q", here=False)
    assert "work: http://horde.test, validator" in cli("profiles", here=False).stdout
    assert json.loads(cli("profiles", "--json", here=False).stdout)["key_file"] == "/k"
    gone = cli("logout", here=False)
    assert (gone.exit_code, "work" in gone.stderr) == (2, True)
    assert "forgotten" in cli("logout", "--profile", "work", here=False).stdout
    assert read_profiles() == {}


def test_a_broken_file_is_explained_everywhere(cli: Cli) -> None:
    profiles_file().parent.mkdir(parents=True)
    profiles_file().write_text("[profiles")
    for command in (["profiles"], ["logout"], ["login"], ["jobs", "list"], ["run", "busybox"]):
        done = cli(*command, here=False)
        assert done.exit_code == 2
        assert "profiles.toml" in done.stderr.replace("\n", "")


def announce(folder: Path) -> None:
    folder.mkdir(parents=True)
    announcement = {
        "facilitator_url": "http://local.test",
        "validator_hotkey": VALIDATOR,
        "wallet_path": "/wallets",
        "wallet_name": "user",
        "wallet_hotkey": "default",
        "pid": 1,
    }
    (folder / "horde.json").write_text(json.dumps(announcement))


def test_option_before_environment_before_profile_before_local_horde(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(home / "data" / "compute-horde")
    assert cli("jobs", "list", here=False).exit_code == 0
    write_profiles(
        {
            "default": Profile("http://default.test", VALIDATOR, key_file="/k", queue="q"),
            "other": Profile("http://other.test", VALIDATOR, key_file="/k"),
        }
    )
    cli("jobs", "list", here=False)
    cli("jobs", "list", "--queue", "", here=False)
    monkeypatch.setenv("HORDE_PROFILE", "other")
    cli("jobs", "list", here=False)
    monkeypatch.setenv("HORDE_FACILITATOR_URL", "http://environment.test")
    cli("jobs", "list", "--wallet-name", "w", "--profile", "default", here=False)
    cli("jobs", "list", "--facilitator", "http://option.test", "--key-file", "/other", here=False)
    monkeypatch.delenv("HORDE_FACILITATOR_URL")
    cli("jobs", "list", "--dir", str(home / "data" / "compute-horde"), here=False)
    assert [(place.facilitator, str(place.key.file), place.queue) for place in cli.places] == [
        ("http://local.test", "/wallets/user/hotkeys/default", None),
        ("http://default.test", "/k", "q"),
        ("http://default.test", "/k", None),
        ("http://other.test", "/k", None),
        ("http://environment.test", str(Path("~/.bittensor/wallets/w/hotkeys/default").expanduser()), "q"),
        ("http://option.test", "/other", None),
        ("http://local.test", "/wallets/user/hotkeys/default", None),
    ]


def test_a_profile_that_is_not_there(cli: Cli) -> None:
    done = cli("jobs", "list", "--profile", "work", here=False)
    assert done.exit_code == 2
    assert "no profile 'work'" in done.stderr


@pytest.mark.parametrize(
    ("option", "says"), [(["--facilitator", "ftp://a.test"], "facilitator_url"), (["--queue", "a\n"], "job_queue")]
)
def test_a_place_that_cannot_be(cli: Cli, option: list[str], says: str) -> None:
    done = cli("run", *option, "busybox")
    assert done.exit_code == 2
    assert says in done.stderr


def test_nothing_known_at_all(cli: Cli) -> None:
    done = cli("run", "busybox", here=False)
    assert done.exit_code == 2
    assert "horde up" in done.stderr
    assert "horde login" in done.stderr

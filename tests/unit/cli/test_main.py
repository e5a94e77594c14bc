"""The command tree: what it lists, what it completes, what it loads."""

import importlib
import importlib.util
import inspect
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from compute_horde.cli.inputs import class_names
from compute_horde.cli.main import CLIENT_ONLY, COMMANDS, app
from compute_horde.cli.place import profile_names
from compute_horde.cli.profile import Profile, profiles_file, write_profiles

SERVERS = ("litestar", "sqlalchemy", "aiodocker", "uvicorn", "websockets", "compute_horde.stack")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    found = getattr(importlib.import_module(f"compute_horde.cli.{COMMANDS[name].module}"), name)
    text = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found)
    assert str(text).splitlines()[0] == COMMANDS[name].help


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(CLIENT_ONLY))
def test_client_commands_load_no_server(name: str) -> None:
    check = (
        "import sys; from compute_horde.cli.main import app\n"
        f"app([{name!r}, '--help'], standalone_mode=False)\n"
        f"print([name for name in {SERVERS} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Usage: " in done.stdout


def completed(words: str, **env: str) -> list[str]:
    """What the shell offers for the last word."""
    number = len(words.split(" ")) - 1
    done = subprocess.run(
        [sys.executable, "-m", "compute_horde.cli"],
        env={
            **os.environ,
            "_HORDE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(number),
            **env,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_commands_and_options() -> None:
    assert completed("horde ") == list(COMMANDS)
    assert completed("horde jobs ") == ["list", "show", "explain", "logs", "wait", "cancel"]
    assert {"--follow", "--facilitator", "--json"} <= set(completed("horde jobs logs --"))


def test_the_shell_completes_values() -> None:
    assert class_names("always_on.t") == completed("horde run --class always_on.t") == ["always_on.test"]
    write_profiles({"work": Profile("http://a.test", "v"), "other": Profile("http://a.test", "v")})
    assert completed("horde jobs list --profile wo") == ["work"]
    assert completed("horde logout --profile ") == ["other", "work"]


def test_a_broken_profile_file_completes_nothing() -> None:
    write_profiles({"work": Profile("http://a.test", "v")})
    assert (profile_names("w"), profile_names("x")) == (["work"], [])
    profiles_file().write_text("[profiles")
    assert profile_names("") == []
    assert completed("horde jobs list --profile ") == []


def test_without_the_extra_a_service_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["miner"])
    assert done.exit_code == 2
    assert "pip install 'compute-horde[horde]'" in done.stderr


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("compute-horde ")


def test_an_unknown_command_is_explained() -> None:
    done = CliRunner().invoke(app, ["job"])
    assert done.exit_code == 2
    assert "No such command 'job'" in done.stderr

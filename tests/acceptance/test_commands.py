"""The command line as a person uses it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import RunningHorde, running

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    "command",
    [
        "up",
        "run",
        "login",
        "logout",
        "profiles",
        "demo",
        "facilitator",
        "validator",
        "miner",
        "executor",
        "explain",
        "backup",
    ],
)
def test_each_command_explains_itself(run_cli: Cli, command: str) -> None:
    done = run_cli(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 5


def test_run_prints_the_jobs_output_and_exits_with_its_code(run_cli: Cli, horde: RunningHorde, image: str) -> None:
    done = run_cli("run", "--dir", str(horde.home), image, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "err\n" in done.stderr
    assert "nonzero_exit" in done.stderr
    assert "hint" in done.stderr


def test_run_json_is_one_object(run_cli: Cli, horde: RunningHorde, image: str, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("some words here\n")
    job = ["-i", f"/volume/in.txt={source}", "-e", "NAME=value", "--save", str(tmp_path / "out")]
    script = "wc -w < /volume/in.txt; echo $NAME > /artifacts/name"
    done = run_cli("run", "--dir", str(horde.home), "--json", *job, image, "--", "sh", "-c", script)
    result = json.loads(done.stdout)
    assert done.returncode == 0
    assert (result["status"], result["stdout"].strip(), result["exit_code"]) == ("completed", "3", 0)
    assert (tmp_path / "out" / "name").read_text() == "value\n"


def test_run_says_that_the_limit_stopped_the_job(run_cli: Cli, horde: RunningHorde, image: str) -> None:
    done = run_cli("run", "--dir", str(horde.home), "--execution-limit", "1", image, "--", "sleep", "30")
    assert done.returncode == 124
    assert "time limit" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--class", "no.such.class", "busybox"], "unknown class"),
        (["--env", "novalue", "busybox"], "NAME=VALUE"),
        (["--input", "/volume/x=/no/such/file", "busybox"], "cannot read"),
        (["--output", "/elsewhere/x=http://127.0.0.1/", "busybox"], "/output/"),
    ],
)
def test_run_explains_wrong_arguments(run_cli: Cli, horde: RunningHorde, args: list[str], says: str) -> None:
    done = run_cli("run", "--dir", str(horde.home), *args)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_run_without_a_horde_says_how_to_get_one(run_cli: Cli, tmp_path: Path) -> None:
    done = run_cli("run", "--dir", str(tmp_path), "busybox")
    assert done.returncode == 2
    assert "horde up" in done.stderr


def test_two_hordes_do_not_share_a_folder(run_cli: Cli, horde: RunningHorde) -> None:
    done = run_cli("up", "--dir", str(horde.home), "--port", "0")
    assert done.returncode == 1
    assert "another horde is running" in done.stderr


def test_a_taken_port_is_explained(run_cli: Cli, horde: RunningHorde, tmp_path: Path) -> None:
    port = horde.info["facilitator_url"].rstrip("/").rsplit(":", 1)[1]
    done = run_cli("up", "--dir", str(tmp_path / "home"), "--port", port)
    assert done.returncode == 1
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_an_engine_up_says_what_to_install(run_cli: Cli, tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = run_cli("up", "--dir", str(tmp_path / "home"), "--port", "0", env=nowhere)
    assert done.returncode == 1
    assert "container engine" in done.stderr
    assert "Traceback" not in done.stderr


def test_up_announces_exactly_what_was_promised(tmp_path: Path) -> None:
    with running(tmp_path / "home") as horde:
        assert list(horde.info) == [
            "facilitator_url",
            "validator_hotkey",
            "wallet_path",
            "wallet_name",
            "wallet_hotkey",
            "pid",
        ]
        assert horde.info["pid"] == horde.process.pid
        assert horde.stop() == 0
        assert horde.process.stdout is not None
        assert horde.process.stdout.read() == ""


def test_the_demo_runs_and_checks_itself(run_cli: Cli) -> None:
    done = run_cli("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "execution_done" in done.stdout
    assert "✗" not in done.stdout


@pytest.mark.parametrize("service", ["facilitator", "validator", "miner", "executor"])
def test_print_config_hides_secrets(run_cli: Cli, service: str) -> None:
    done = run_cli(service, "--print-config", env={"HORDE_FACILITATOR_SECRET": "s3cr3t-value-of-32-characters-xx"})
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    assert "s3cr3t" not in done.stdout


def test_a_wrong_setting_is_named(run_cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "facilitator.toml"
    file.write_text('prot = 9000\nport = "many"\n')
    done = run_cli("facilitator", "--config", str(file))
    assert done.returncode == 2
    assert "prot" in done.stderr
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr

"""``horde jobs``, ``horde login`` and what ``horde run`` does while a job runs: as processes, on a real horde."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import HORDE, RunningHorde, running, start_horde

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
STARTED = ("volumes_ready", "execution_done", "completed")


@contextlib.contextmanager
def background(*args: str) -> Iterator["subprocess.Popen[str]"]:
    """A command that goes on meanwhile."""
    process = subprocess.Popen(
        [*HORDE, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        bufsize=1,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def detached(run_cli: Cli, horde: RunningHorde, image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    """The uuid of a new job."""
    done = run_cli("run", "--dir", str(horde.home), "--detach", *options, image, "--", *command)
    assert done.returncode == 0, done.stderr
    return str(done.stdout.strip())


def shown(run_cli: Cli, horde: RunningHorde, job: str) -> dict[str, Any]:
    done = run_cli("jobs", "show", "--dir", str(horde.home), "--json", job)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def until_it_runs(run_cli: Cli, horde: RunningHorde, job: str) -> None:
    for _ in range(100):
        if shown(run_cli, horde, job)["status"] in STARTED:
            return
        time.sleep(0.1)
    raise AssertionError("the job does not start")


def test_a_job_that_is_left_alone_is_found_again(run_cli: Cli, horde: RunningHorde, image: str) -> None:
    here = ["--dir", str(horde.home)]
    script = "echo out; echo err >&2; echo a > /artifacts/a"
    job = detached(run_cli, horde, image, "sh", "-c", script, options=("--queue", "found-again"))
    waited = run_cli("jobs", "wait", *here, "--timeout", "60", job)
    assert (waited.returncode, waited.stdout) == (0, f"{job} completed\n"), waited.stderr
    listed = run_cli("jobs", "list", *here, "--queue", "found-again", "--json")
    assert [json.loads(line)["uuid"] for line in listed.stdout.splitlines()] == [job]
    assert run_cli("jobs", "list", *here, "--queue", "found-again", "--pending", "--json").stdout == ""
    assert job in run_cli("jobs", "list", *here).stdout
    found = shown(run_cli, horde, job)
    assert (found["status"], found["job_queue"], found["stdout"]) == ("completed", "found-again", "out\n")
    assert found["artifacts"] == {"/artifacts/a": "YQo="}
    text = run_cli("jobs", "show", *here, job)
    assert "execution_done" in text.stdout
    logs = run_cli("jobs", "logs", *here, job)
    assert (logs.returncode, logs.stdout, logs.stderr) == (0, "out\n", "err\n")


def test_logs_are_followed_while_the_job_runs(run_cli: Cli, horde: RunningHorde, image: str) -> None:
    job = detached(run_cli, horde, image, "sh", "-c", "echo begun; echo oops >&2; sleep 6; echo ended")
    with background("jobs", "logs", "--dir", str(horde.home), "-f", "--json", job) as following:
        assert following.stdout is not None
        first = {following.stdout.readline() for _ in range(2)}
        assert shown(run_cli, horde, job)["status"] not in ("completed", "failed")
        rest, complaints = following.communicate(timeout=60)
        assert (following.returncode, complaints) == (0, "")
    lines = [json.loads(line) for line in (*first, *rest.splitlines())]
    assert {"stream": "stderr", "text": "oops", "attempt": 1} in lines
    assert [line["text"] for line in lines if line["stream"] == "stdout"] == ["begun", "ended"]


def test_run_follows_and_does_not_repeat(run_cli: Cli, horde: RunningHorde, image: str) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 1; done; exit 3"
    with background("run", "--dir", str(horde.home), "--follow", image, "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "line 1\n"
        assert process.poll() is None
        rest, complaints = process.communicate(timeout=60)
    assert (process.returncode, rest) == (3, "line 2\nline 3\n")
    assert "nonzero_exit" in complaints


def test_cancel_stops_a_job_and_keeps_what_it_printed(run_cli: Cli, horde: RunningHorde, image: str) -> None:
    here = ["--dir", str(horde.home)]
    job = detached(run_cli, horde, image, "sh", "-c", "echo begun; sleep 300")
    until_it_runs(run_cli, horde, job)
    time.sleep(1)
    cancelled = run_cli("jobs", "cancel", *here, job)
    assert cancelled.returncode == 0, cancelled.stderr
    waited = run_cli("jobs", "wait", *here, "--timeout", "30", job)
    assert (waited.returncode, waited.stdout) == (79, f"{job} cancelled\n"), waited.stderr
    assert shown(run_cli, horde, job)["stdout"] == "begun\n"
    again = run_cli("jobs", "cancel", *here, job)
    assert (again.returncode, again.stdout) == (0, f"{job} had ended: cancelled\n")


def test_ctrl_c_leaves_the_job_and_names_it(run_cli: Cli, horde: RunningHorde, image: str) -> None:
    with background("run", "--dir", str(horde.home), "-f", image, "--", "sh", "-c", "echo up; sleep 5") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        _, says = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in says
    job = says.partition("; job ")[2].partition(" goes on")[0]
    assert run_cli("jobs", "wait", "--dir", str(horde.home), job).stdout == f"{job} completed\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_script_can_cancel_its_job(
    run_cli: Cli, horde: RunningHorde, image: str, number: signal.Signals, code: int
) -> None:
    options = ["--dir", str(horde.home), "--cancel-on-interrupt", "--follow"]
    with background("run", *options, image, "--", "sh", "-c", "echo up; sleep 300") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        _, says = process.communicate(timeout=40)
    assert process.returncode == code, says
    assert "Traceback" not in says
    job = says.partition("; job ")[2].partition(" was cancelled")[0]
    assert run_cli("jobs", "wait", "--dir", str(horde.home), "--timeout", "30", job).returncode == 79


def test_run_cross_validates(run_cli: Cli, horde: RunningHorde, image: str) -> None:
    here = ["run", "--dir", str(horde.home), "--cross-validate", "--json", image, "--", "sh", "-c"]
    same = run_cli(*here, "echo 1 > /artifacts/a")
    verdict = json.loads(same.stdout)["cross_validation"]
    assert (same.returncode, verdict["state"]) == (0, "match"), same.stderr
    differing = run_cli(*here, "head -c 16 /dev/urandom > /artifacts/a")
    verdict = json.loads(differing.stdout)["cross_validation"]
    assert (differing.returncode, verdict["state"], verdict["reported"]) == (76, "mismatch", True), (
        differing.stderr
    )


def test_login_and_a_profile(run_cli: Cli, horde: RunningHorde, image: str, tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")}
    info = horde.info
    where = ["--facilitator", info["facilitator_url"], "--validator", info["validator_hotkey"]]
    key = Path(info["wallet_path"]) / info["wallet_name"] / "hotkeys" / info["wallet_hotkey"]
    done = run_cli("login", "--profile", "work", *where, "--key-file", str(key), "--json", env=env)
    assert done.returncode == 0, done.stderr
    file = Path(json.loads(done.stdout)["file"])
    assert (file.stat().st_mode & 0o777, file.parent.parent) == (0o600, tmp_path / "config")
    assert "seed" not in file.read_text().lower()
    ran = run_cli("run", "--profile", "work", image, "--", "echo", "hello", env=env)
    assert (ran.returncode, ran.stdout) == (0, "hello\n"), ran.stderr
    assert run_cli("jobs", "list", "--json", env={**env, "HORDE_PROFILE": "work"}).returncode == 0
    assert run_cli("jobs", "list", env=env).returncode == 2
    assert run_cli("logout", "--profile", "work", env=env).returncode == 0
    assert run_cli("jobs", "list", "--profile", "work", env=env).returncode == 2


def test_login_as_a_stranger_is_refused(run_cli: Cli, horde: RunningHorde, tmp_path: Path) -> None:
    from bittensor_wallet import Wallet

    Wallet("w", "h", str(tmp_path)).create_new_hotkey(use_password=False, overwrite=False, suppress=True)
    where = ["--facilitator", horde.info["facilitator_url"], "--validator", horde.info["validator_hotkey"]]
    key = ["--wallet-path", str(tmp_path), "--wallet-name", "w", "--wallet-hotkey", "h"]
    done = run_cli("login", *where, *key, env={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert done.returncode == 77
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["list", "--limit", "none"], 2, "--limit"),
        (["show"], 2, "UUID"),
        (["logs", "--stdout-only", "--stderr-only", "x"], 2, "nothing to show"),
        (["show", "no-uuid"], 66, "UUID"),
        (["cancel", "00000000-0000-4000-8000-000000000000"], 66, "00000000"),
        (["wait", "00000000-0000-4000-8000-000000000000"], 66, "error: "),
    ],
)
def test_wrong_arguments_are_explained(
    run_cli: Cli, horde: RunningHorde, args: list[str], code: int, says: str
) -> None:
    done = run_cli("jobs", args[0], "--dir", str(horde.home), *args[1:])
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_facilitator_that_is_not_there(run_cli: Cli, horde: RunningHorde) -> None:
    nowhere = ["--facilitator", "http://127.0.0.1:1"]
    done = run_cli("jobs", "list", "--dir", str(horde.home), *nowhere)
    assert (done.returncode, done.stdout) == (69, "")
    assert "the facilitator at http://127.0.0.1:1 does not answer; trying again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_horde_that_dies_is_told_and_found_again(run_cli: Cli, tmp_path: Path, image: str) -> None:
    home = tmp_path / "home"
    with running(home) as horde:
        with background("run", "--dir", str(home), image, "--", "sh", "-c", "sleep 12; echo done") as process:
            assert process.stderr is not None
            time.sleep(4)
            horde.stop(signal.SIGKILL)
            told = process.stderr.readline()
            assert "does not answer; trying again" in told
            again = start_horde(home)  # at another port
            try:
                printed, says = process.communicate(timeout=60)
            finally:
                again.stop()
        assert again.info["facilitator_url"] != horde.info["facilitator_url"]
        assert f"the local horde is at {again.info['facilitator_url']} now" in says
        assert (process.returncode, printed) == (0, "done\n"), says
        assert again.process.stdout is not None
        again.process.stdout.close()

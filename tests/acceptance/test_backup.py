"""A copy that was taken from a running horde is a horde."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .conftest import running

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
ENDED = {"completed", "failed", "horde_failed", "rejected", "cancelled"}


def ok(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_a_backup_goes_on_from_where_it_was_taken(run_cli: Cli, image: str, tmp_path: Path) -> None:
    home, copy, restored = tmp_path / "home", tmp_path / "copy", tmp_path / "restored"

    def show(folder: Path, job: str) -> Any:
        return json.loads(ok(run_cli("jobs", "show", "--dir", str(folder), "--json", job)))

    with running(home) as horde:
        detached = ("run", "--dir", str(home), "--detach", "--execution-limit", "30", image, "--")
        ended = ok(run_cli(*detached, "echo", "kept"))
        ok(run_cli("jobs", "wait", "--dir", str(home), ended))
        under_way = ok(run_cli(*detached, "sleep", "8"))
        until = time.monotonic() + 30
        while show(home, under_way)["status"] != "volumes_ready":
            assert time.monotonic() < until, "the job does not start"
        told = json.loads(ok(run_cli("backup", str(copy), "--dir", str(home), "--json")))
        too_late = ok(run_cli(*detached, "true"))
        ok(run_cli("jobs", "wait", "--dir", str(home), too_late))
        assert horde.stop() == 0
    assert len(told["databases"]) == 4
    assert told["target"] == str(copy)

    shutil.copytree(copy, restored)
    with running(restored):
        before = show(restored, ended)
        assert (before["status"], before["stdout"]) == ("completed", "kept\n")
        run_cli("jobs", "wait", "--dir", str(restored), "--timeout", "80", under_way)
        assert show(restored, under_way)["status"] in ENDED
        assert run_cli("jobs", "show", "--dir", str(restored), too_late).returncode == 66
        again = ("run", "--dir", str(restored), image, "--", "echo", "new")
        assert ok(run_cli(*again)) == "new"

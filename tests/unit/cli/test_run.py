"""``horde run``."""

import json
from pathlib import Path

import httpx
import pytest

from .conftest import Cli, Served, body_of_the_job, ends, failed, printed


def test_the_output_comes_back_and_the_exit_code_is_the_jobs(cli: Cli, fake: Served) -> None:
    fake.after = ends("failed", failed(7, "out\n", "err\n"))
    done = cli("run", "busybox", "--", "sh", "-c", "exit 7")
    assert (done.exit_code, done.stdout) == (7, "out\n")
    assert "err\n" in done.stderr
    assert "nonzero_exit" in done.stderr
    assert "hint: " in done.stderr


def test_output_that_was_followed_is_not_repeated(cli: Cli, fake: Served) -> None:
    def after(fake: Served, request: httpx.Request) -> None:
        if not request.url.path.endswith("/logs/"):
            return
        (job_uuid,) = fake.jobs
        fake.print(job_uuid, "stdout", "one\ntw")
        fake.print(job_uuid, "stderr", "oops\n")
        fake.advance(job_uuid, "completed", printed("one\ntwo\nthree", "oops\n"))

    fake.after = after
    done = cli("run", "--follow", "busybox")
    assert (done.exit_code, done.stdout) == (0, "one\ntwo\nthree\n")
    assert done.stderr == "oops\n"


def test_a_horde_that_cannot_tell_output_is_followed_to_the_result(cli: Cli, fake: Served) -> None:
    fake.extensions = frozenset()
    fake.after = ends("completed", printed("all of it\n"))
    done = cli("run", "-f", "busybox")
    assert (done.exit_code, done.stdout) == (0, "all of it\n")


def test_json_has_the_keys_that_are_promised(cli: Cli, fake: Served) -> None:
    fake.after = ends("completed", printed("out\n", exit_status=0, artifacts={"/artifacts/a": "aGk="}))
    done = cli("run", "--json", "--queue", "nightly", "busybox")
    found = json.loads(done.stdout)
    assert list(found) == [
        "uuid",
        "status",
        "created_at",
        "executor_class",
        "docker_image",
        "job_namespace",
        "job_queue",
        "on_trusted_miner",
        "queue",
        "attempt",
        "attempts",
        "exit_code",
        "timed_out",
        "stdout",
        "stderr",
        "artifacts",
        "upload_results",
        "notices",
        "image_digest",
        "output_hashes",
        "error",
        "attempts_made",
        "status_history",
        "streaming",
        "cross_validation",
    ]
    assert (found["status"], found["stdout"], found["artifacts"]) == (
        "completed",
        "out\n",
        {"/artifacts/a": "aGk="},
    )
    assert (found["job_queue"], found["cross_validation"]) == ("nightly", None)
    assert [entry["status"] for entry in found["status_history"]] == ["sent", "completed"]
    assert body_of_the_job(fake)["tag"] == "nightly"


def test_detached_it_prints_the_uuid_and_leaves(cli: Cli, fake: Served) -> None:
    done = cli("run", "-d", "busybox")
    assert done.exit_code == 0
    assert done.stdout.split() == list(fake.jobs)
    assert json.loads(cli("run", "-d", "--json", "busybox").stdout)["status"] == "sent"


def test_environment_from_a_file_and_from_here(
    cli: Cli, fake: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=from file=1\nB=two\nHERE_ONLY\nNOWHERE\n")
    monkeypatch.setenv("HERE_ONLY", "yes")
    cli("run", "-d", "--env-file", str(file), "-e", "B=over it", "busybox")
    assert body_of_the_job(fake)["env"] == {"A": "from file=1", "B": "over it", "HERE_ONLY": "yes"}


def test_a_local_folder_as_input(cli: Cli, fake: Served, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("hello")
    done = cli("run", "-d", "-i", f"/volume/in={tmp_path / 'in'}", "-i", "/volume/x=http://a.test/x", "busybox")
    assert done.exit_code == 0, done.output
    volume = json.dumps(body_of_the_job(fake))
    assert "inline" in volume
    assert "http://a.test/x" in volume


def test_artifacts_are_saved_and_named(cli: Cli, fake: Served, tmp_path: Path) -> None:
    fake.after = ends("completed", printed(artifacts={"/artifacts/../../a\n.txt": "aGk="}, notices=["cut\x1b[2J"]))
    done = cli("run", "--save", str(tmp_path / "out"), "busybox")
    assert [file.read_text() for file in (tmp_path / "out").iterdir()] == ["hi"]
    assert "artifact: /artifacts/../../a\\n.txt (2 bytes)" in done.stderr
    assert "notice: cut\\x1b[2J" in done.stderr
    (tmp_path / "file").touch()
    assert cli("run", "--save", str(tmp_path / "file"), "busybox").exit_code == 1
    refused = cli("run", "--save", "/proc/nowhere", "busybox")
    assert refused.exit_code == 1
    assert "cannot save the artifacts in /proc/nowhere" in refused.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--class", "no.such.class", "busybox"], "unknown class"),
        (["--env", "novalue", "busybox"], "NAME=VALUE"),
        (["--env-file", "/no/such/file", "busybox"], "cannot read /no/such/file"),
        (["--input", "/volume/x=/no/such/file", "busybox"], "cannot read"),
        (["--output", "/output/x=ftp://127.0.0.1/", "busybox"], "--output /output/x: "),
        (["--output", "/elsewhere/x=http://127.0.0.1/", "busybox"], "/output/"),
        (["--json", "--follow", "busybox"], "--follow"),
        (["--detach", "--follow", "busybox"], "--detach"),
        (["--detach", "--save", "x", "busybox"], "--detach"),
        (["--trusted-output", "/output/x=http://a.test/", "busybox"], "--cross-validate"),
        (["--timeout", "-1", "busybox"], "--timeout"),
        (["--queue-time-limit", "-1", "busybox"], "--queue-time-limit"),
        (["--queue-time-limit", "604801", "busybox"], "0 to 604800"),
        (["--attempts", "0", "busybox"], "--attempts"),
        (["--attempts", "11", "busybox"], "1 to 10"),
        (["--retry-backoff", "-1", "busybox"], "--retry-backoff"),
        (["--retry-backoff", "3601", "busybox"], "0 to 3600"),
        (["--priority", "101", "busybox"], "-100 to 100"),
        (["--priority", "high", "busybox"], "--priority"),
        ([], "IMAGE"),
    ],
)
def test_wrong_arguments_are_explained(cli: Cli, args: list[str], says: str) -> None:
    done = cli("run", *args)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_time_runs_out(cli: Cli) -> None:
    done = cli("run", "--timeout", "0.1", "busybox")
    assert done.exit_code == 124
    assert "did not end" in done.stderr


@pytest.mark.parametrize(
    ("status", "answer", "code", "says"),
    [(401, {"error": "no"}, 77, "refused"), (502, None, 69, "error: ")],
)
def test_a_facilitator_that_refuses(
    cli: Cli, fake: Served, status: int, answer: object, code: int, says: str
) -> None:
    fake.fail("/auth/nonce", *[httpx.Response(status, json=answer)] * 50)
    done = cli("run", "busybox")
    assert done.exit_code == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_trusted_miner_contradicts(cli: Cli, fake: Served) -> None:
    def after(fake: Served, request: httpx.Request) -> None:
        for job_uuid, job in list(fake.jobs.items()):
            if job.status == "sent" and len(fake.jobs) == 2:
                artifact = "YQ==" if job.trusted_job_uuid else "Yg=="
                fake.advance(job_uuid, "completed", printed(artifacts={"/artifacts/a": artifact}))

    fake.after = after
    done = cli("run", "--json", "--cross-validate", "busybox")
    found = json.loads(done.stdout)["cross_validation"]
    assert (done.exit_code, found["state"], found["reported"]) == (76, "mismatch", True)
    assert found["evidence"]["difference_count"] == 1
    assert "cross-validation: mismatch" in done.stderr
    assert "artifact /artifacts/a: " in done.stderr
    assert "reported to the validator" in done.stderr
    assert len(fake.reports) == 1


def test_a_contradiction_is_kept_to_oneself(cli: Cli, fake: Served) -> None:
    def after(fake: Served, request: httpx.Request) -> None:
        for job_uuid, job in list(fake.jobs.items()):
            if job.status == "sent" and len(fake.jobs) == 2:
                artifact = "YQ==" if job.trusted_job_uuid else "Yg=="
                fake.advance(job_uuid, "completed", printed(artifacts={"/artifacts/a": artifact}))

    fake.after = after
    assert cli("run", "--cross-validate", "--no-report", "busybox").exit_code == 76
    assert fake.reports == []

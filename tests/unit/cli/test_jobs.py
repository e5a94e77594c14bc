"""``horde jobs list | show | logs | wait | cancel``; waiting and attempts are in test_queued.py."""

import json

import httpx
import pytest

from .conftest import UUID, Cli, Served, ends, failed, printed


def test_list_shows_the_newest_first(cli: Cli, fake: Served) -> None:
    first, second = cli.job(), cli.job(queue="nightly")
    fake.advance(first, "completed", printed())
    done = cli("jobs", "list")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["UUID", "STATUS", "CLASS", "IMAGE", "AGE", "QUEUE"]
    assert [line.split()[:4] for line in lines[1:]] == [
        [second, "sent", "always_on.test", "busybox"],
        [first, "completed", "always_on.test", "busybox"],
    ]
    assert lines[1].endswith("nightly")


def test_list_of_a_queue_of_the_pending_and_of_a_few(cli: Cli, fake: Served) -> None:
    first, second, third = cli.job(queue="q"), cli.job(queue="q"), cli.job()
    fake.advance(first, "completed", printed())

    def listed(*options: str) -> list[str]:
        done = cli("jobs", "list", "--json", *options)
        assert done.exit_code == 0
        return [json.loads(line)["uuid"] for line in done.stdout.splitlines()]

    assert listed() == [third, second, first]
    assert listed("--queue", "q") == [second, first]
    assert listed("--queue", "q", "--pending") == [second]
    assert listed("--limit", "1") == [third]
    assert listed("--queue", "none such") == []


def test_a_jobs_own_words_cannot_drive_the_terminal(cli: Cli, fake: Served) -> None:
    job = cli.job()
    fake.advance(job, "accepted", tag="q\x1b[2J [red]")
    for command in (["list"], ["show", job]):
        done = cli("jobs", *command)
        assert "\x1b" not in done.stdout
        assert "q\\x1b[2J [red]" in done.stdout


def test_list_names_the_keys_that_are_promised(cli: Cli) -> None:
    cli.job()
    assert list(json.loads(cli("jobs", "list", "--json").stdout)) == [
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
    ]


def test_show_tells_all(cli: Cli, fake: Served) -> None:
    job = cli.job(queue="nightly")
    fake.advance(job, "accepted")
    metadata = printed(
        "out\n",
        artifacts={"/artifacts/a.txt": "aGk="},
        upload_results={"x.txt": '{"headers": {}, "body": "ok"}'},
        timed_out=True,
        notices=["cut"],
        image_digest="sha256:00ff",
        output_hashes={"x.txt": "ab" * 32},
    )
    fake.advance(job, "completed", metadata)
    done = cli("jobs", "show", job)
    assert done.exit_code == 0
    shown = " ".join(done.stdout.split())
    for part in (
        f"job {job}",
        "status completed",
        "image busybox",
        "queue nightly",
        "stopped by the time limit",
        "stdout 4 characters",
        "artifact /artifacts/a.txt (2 bytes)",
        "upload /output/x.txt",
        f"sha256 {'ab' * 32}",
        "ran image sha256:00ff",
        "notice cut",
        "sent for 1.000 s",
        "completed",
    ):
        assert part in shown, part


def test_show_says_why_a_job_failed(cli: Cli, fake: Served) -> None:
    job = cli.job()
    fake.advance(job, "failed", failed(3))
    done = cli("jobs", "show", job)
    assert done.exit_code == 0
    assert "exit code 3" in " ".join(done.stdout.split())
    assert "failed (nonzero_exit, stage execution, fault user)" in done.stderr
    assert "hint: " in done.stderr
    found = json.loads(cli("jobs", "show", job, "--json").stdout)
    assert list(found["error"]) == ["code", "message", "stage", "fault", "retryable", "hint"]
    assert found["status_history"][0]["seconds"] == 1


def test_show_of_a_streaming_and_trusted_job(cli: Cli, fake: Served) -> None:
    job = cli("run", "-d", "--trusted", "busybox").stdout.strip()
    details = {
        "streaming_server_address": "127.0.0.1",
        "streaming_server_port": 4000,
        "streaming_server_cert": "-",
    }
    fake.advance(job, "streaming_ready", {"streaming_details": details}, **details)
    shown = " ".join(cli("jobs", "show", job).stdout.split())
    assert "streaming 127.0.0.1:4000" in shown
    assert "the validator's trusted one" in shown
    found = json.loads(cli("jobs", "show", "--json", job).stdout)
    assert found["streaming"] == {"address": "127.0.0.1", "port": 4000}


@pytest.mark.parametrize("command", ["show", "explain", "logs", "wait", "cancel"])
@pytest.mark.parametrize("uuid", [UUID, "no-uuid"])
def test_a_job_that_is_not_yours(cli: Cli, command: str, uuid: str) -> None:
    done = cli("jobs", command, uuid)
    assert (done.exit_code, done.stdout) == (66, "")
    assert "error: " in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["show"], "UUID"),
        (["wait"], "UUID"),
        (["logs", UUID, "--stdout-only", "--stderr-only"], "--stdout-only"),
        (["list", "--limit", "0"], "--limit"),
        (["remove", UUID], "remove"),
    ],
)
def test_wrong_arguments_are_explained(cli: Cli, args: list[str], says: str) -> None:
    done = cli("jobs", *args, here=args[0] != "remove")
    assert done.exit_code == 2
    assert says in done.stderr


def test_logs_of_a_job_that_ended(cli: Cli, fake: Served) -> None:
    job = cli.job()
    fake.advance(job, "completed", printed("one\ntwo\n", "oops\n"))
    done = cli("jobs", "logs", job)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "one\ntwo\n", "oops\n")
    assert cli("jobs", "logs", job, "--stderr-only").stdout == ""
    assert cli("jobs", "logs", job, "--stdout-only").stderr == ""
    lines = [json.loads(line) for line in cli("jobs", "logs", "--json", job).stdout.splitlines()]
    assert lines == [
        {"stream": "stdout", "text": "one", "attempt": 1},
        {"stream": "stdout", "text": "two", "attempt": 1},
        {"stream": "stderr", "text": "oops", "attempt": 1},
    ]


def test_logs_are_followed_to_the_end(cli: Cli, fake: Served) -> None:
    job = cli.job()

    def after(fake: Served, request: httpx.Request) -> None:
        if request.url.path.endswith("/logs/"):
            fake.print(job, "stdout", "begun\n")
            fake.advance(job, "failed", failed(3, "begun\nended\n"))

    fake.after = after
    done = cli("jobs", "logs", "-f", job)
    assert (done.exit_code, done.stdout) == (0, "begun\nended\n")


def test_wait_for_several(cli: Cli, fake: Served) -> None:
    good, bad = cli.job(), cli.job()
    fake.advance(good, "completed", printed())
    fake.advance(bad, "failed", failed(3))
    done = cli("jobs", "wait", good, bad, good)
    assert (done.exit_code, sorted(done.stdout.splitlines())) == (
        3,
        sorted([f"{good} completed", f"{bad} failed"]),
    )
    assert "nonzero_exit" in done.stderr
    assert cli("jobs", "wait", good).exit_code == 0
    found = [json.loads(line) for line in cli("jobs", "wait", "--json", good, bad).stdout.splitlines()]
    assert {one["uuid"]: one["status"] for one in found} == {good: "completed", bad: "failed"}


def test_wait_says_who_has_ended_before_the_time_runs_out(cli: Cli, fake: Served) -> None:
    ended, under_way = cli.job(), cli.job()
    fake.advance(ended, "completed", printed())
    done = cli("jobs", "wait", "--timeout", "0.2", ended, under_way)
    assert (done.exit_code, done.stdout) == (124, f"{ended} completed\n")
    assert under_way in done.stderr


def test_wait_for_the_verdict(cli: Cli, fake: Served) -> None:
    job = cli("run", "-d", "--cross-validate", "busybox").stdout.strip()
    plain = cli.job()
    for number, one in enumerate(list(fake.jobs)):
        fake.advance(one, "completed", printed(artifacts={"/artifacts/a": f"YQ{'=' * 2}" if number else "Yg=="}))
    done = cli("jobs", "wait", "--cross-validation", plain, job)
    assert (done.exit_code, done.stdout) == (76, f"{plain} completed\n{job} completed\n")
    assert "cross-validation: mismatch" in done.stderr


def test_cancel(cli: Cli, fake: Served) -> None:
    job, ended = cli.job(), cli.job()
    fake.advance(ended, "completed", printed())
    done = cli("jobs", "cancel", job, UUID, ended)
    assert done.exit_code == 66
    assert done.stdout.splitlines()[0].startswith(job)
    assert done.stdout.splitlines()[1] == f"{ended} had ended: completed"
    assert UUID in done.stderr
    assert fake.sent("POST", f"/api/v1/jobs/{job}/cancel/")
    again = cli("jobs", "cancel", "--json", job)
    assert (again.exit_code, json.loads(again.stdout)["uuid"]) == (0, job)


def test_a_cancelled_job_has_its_own_exit_code(cli: Cli, fake: Served) -> None:
    job = cli.job()
    assert cli("jobs", "cancel", job).stdout == f"{job} is being cancelled\n"
    fake.advance(job, "cancelled", {})
    assert cli("jobs", "wait", job).exit_code == 79


def test_a_facilitator_that_cannot_cancel(cli: Cli, fake: Served) -> None:
    fake.extensions = frozenset()
    job = cli.job()
    done = cli("jobs", "cancel", job)
    assert done.exit_code == 69
    assert "cannot cancel" in done.stderr


def test_a_job_goes_on_while_it_is_waited_for(cli: Cli, fake: Served) -> None:
    job = cli.job()
    fake.after = ends("horde_failed")
    assert cli("jobs", "wait", job).exit_code == 69

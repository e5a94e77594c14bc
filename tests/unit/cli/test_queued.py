"""Jobs that wait and are tried again, and why: at the terminal."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from compute_horde.cli.live import Output
from compute_horde.cli.progress import TRUSTED_MINER, age, attempt_line, duration, place, progress
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.explanation import Explanation, MinerTrial
from compute_horde.protocol.scheduling import QueuePlace as WirePlace
from compute_horde_sdk._internal.models import ComputeHordeJobStatus
from compute_horde_sdk.v1 import JobAttempt, LogLine, QueuePlace

from .conftest import Cli, Served, body_of_the_job, ends, printed

GONE: dict[str, Any] = {
    "horde_failure_details": {"reported_by": "miner", "reason": "executor_disconnected", "message": "it is\ngone"}
}
WAITS: dict[str, Any] = {
    "attempt": {"number": 1, "of": 3},
    "queue": {"position": 3, "length": 7, "starts_in_s": 125, "time_limit_s": 600},
}
COMMANDS = [("explain",), ("jobs", "explain")]


def begin(fake: Served, job: str, number: int, miner: str = "5Miner") -> None:
    fake.advance(job, "accepted", {"attempt": {"number": number, "of": 3, "miner_hotkey": miner}})


def tried_twice(fake: Served, job: str) -> None:
    begin(fake, job, 1)
    fake.retry(job, GONE, 2)
    begin(fake, job, 2, "0" * 48)


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0 s"), (0.9, "0 s"), (59, "59 s"), (150, "2 min"), (7200, "2 h"), (2e5, "2 d")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert (duration(seconds), age(dt.timedelta(seconds=seconds))) == (words, words)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (QueuePlace(3, 7, 125), "3 of 7, starts in about 2 min"),
        (QueuePlace(3, 7), "3 of 7"),
        (QueuePlace(3), "number 3"),
        (QueuePlace(starts_in=5), "starts in about 5 s"),
        (QueuePlace(), ""),
    ],
)
def test_places_in_words(where: QueuePlace, words: str) -> None:
    assert place(where) == words


def test_attempts_in_words() -> None:
    assert TRUSTED_MINER == TRUSTED_MINER_HOTKEY
    assert attempt_line(JobAttempt(1)) == "1 by unknown: under way"
    done = JobAttempt(2, "0" * 48, ComputeHordeJobStatus.COMPLETED)
    assert attempt_line(done) == "2 by the trusted miner: completed"


async def test_where_a_job_stands_in_words(fake: Served) -> None:
    async with fake.client() as client:
        job = await client.create_job("always_on.test", "SN0", "busybox")
        found = [progress(job)]
        steps: list[Callable[[], object]] = [
            lambda: fake.advance(job.uuid, "queued"),
            lambda: fake.advance(job.uuid, "queued", WAITS),
            lambda: begin(fake, job.uuid, 1),
            lambda: fake.retry(job.uuid, GONE, 2),
            lambda: begin(fake, job.uuid, 2),
            lambda: fake.retry(job.uuid, GONE, 3),
        ]
        for step in steps:
            step()
            await job.refresh_from_facilitator()
            found.append(progress(job))
        fake.advance(job.uuid, "accepted", status_history=[], attempt=2)
        await job.refresh_from_facilitator()
        found.append(progress(job))
    first, second = "(the first failed: executor_disconnected)", "(the second failed: executor_disconnected)"
    assert found == [
        "sent",
        "queued",
        "queued, 3 of 7, starts in about 2 min",
        "accepted",
        f"queued, 1 of 1, starts in about 1 s, attempt 2 of 3 {first}",
        f"accepted, attempt 2 of 3 {first}",
        f"queued, 1 of 1, starts in about 1 s, attempt 3 of 3 {second}",
        "accepted, attempt 2",
    ]


def test_wishes_are_sent(cli: Cli, fake: Served) -> None:
    wishes = ["--queue-time-limit", "30", "--attempts", "2", "--retry-backoff", "0.5", "--priority", "-7"]
    assert cli("run", "-d", *wishes, "busybox").exit_code == 0
    body = body_of_the_job(fake)
    names = ("queue_time_limit", "attempts", "retry_backoff", "priority")
    assert [body[name] for name in names] == [30, 2, 0.5, -7]


def test_a_facilitator_that_cannot_keep_a_wish(cli: Cli, fake: Served) -> None:
    fake.extensions = frozenset()
    done = cli("run", "--attempts", "2", "busybox")
    assert done.exit_code == 69
    assert "cannot keep attempts" in done.stderr
    assert fake.jobs == {}


def test_list_and_show_tell_where_a_job_waits(cli: Cli, fake: Served) -> None:
    job, unknown = cli.job(), cli.job()
    fake.advance(job, "queued", WAITS)
    fake.advance(unknown, "queued")
    lines = cli("jobs", "list").stdout.splitlines()[1:]
    assert lines[0].split()[:3] == [unknown, "queued", "always_on.test"]
    assert lines[1].startswith(f"{job}  queued (3 of 7)  always_on.test")
    shown = " ".join(cli("jobs", "show", job).stdout.split())
    assert "status queued waits 3 of 7, starts in about 2 min attempt 1 of 3" in shown
    for command in (["list", "--json"], ["show", job, "--json"]):
        found = json.loads(cli("jobs", *command).stdout.splitlines()[-1])
        assert found["queue"] == {"position": 3, "length": 7, "starts_in_s": 125}
        assert (found["attempt"], found["attempts"]) == (1, 3)


def test_list_and_show_tell_of_attempts(cli: Cli, fake: Served) -> None:
    job = cli.job()
    tried_twice(fake, job)
    assert f"{job}  accepted (attempt 2 of 3)" in cli("jobs", "list").stdout
    shown = " ".join(cli("jobs", "show", job).stdout.split())
    assert "attempts 1 by 5Miner: horde_failed (executor_disconnected): it is\\ngone" in shown
    assert "2 by the trusted miner: under way" in shown
    assert "queued attempt 2 for 1.000 s" in shown
    found = json.loads(cli("jobs", "show", job, "--json").stdout)
    assert [
        (one["number"], one["outcome"], one["error"] and one["error"]["code"]) for one in found["attempts_made"]
    ] == [
        (1, "horde_failed", "executor_disconnected"),
        (2, None, None),
    ]
    assert [(one["attempt"], one["miner_hotkey"]) for one in found["status_history"]] == [
        (None, None),
        (1, "5Miner"),
        (2, None),
        (2, "0" * 48),
    ]


def test_a_list_of_a_job_that_waits_again(cli: Cli, fake: Served) -> None:
    job = cli.job()
    fake.retry(job, GONE, 2)
    assert f"{job}  queued (1 of 1, attempt 2 of 3)" in cli("jobs", "list").stdout


def test_run_says_at_the_end_what_failed_before(cli: Cli, fake: Served) -> None:
    def after(fake: Served, request: httpx.Request) -> None:
        for job in fake.jobs:
            if fake.jobs[job].status == "sent":
                tried_twice(fake, job)
                fake.advance(job, "completed", {**printed("out\n"), "attempt": {"number": 2, "of": 3}})

    fake.after = after
    done = cli("run", "busybox")
    assert (done.exit_code, done.stdout) == (0, "out\n")
    assert done.stderr == "attempt 1 by 5Miner: horde_failed (executor_disconnected): it is\\ngone\n"


def test_output_of_each_attempt_is_shown_from_its_beginning(cli: Cli, fake: Served) -> None:
    seen: list[str] = []

    def after(fake: Served, request: httpx.Request) -> None:
        if not request.url.path.endswith("/logs/"):
            return
        (job,) = fake.jobs
        seen.append(job)
        if len(seen) == 1:
            begin(fake, job, 1)
            fake.print(job, "stdout", "one\n")
            fake.retry(job, GONE, 2)
            begin(fake, job, 2)
        else:
            fake.print(job, "stdout", "anew\n")
            fake.advance(job, "completed", {**printed("anew\nend\n"), "attempt": {"number": 2, "of": 3}})

    fake.after = after
    done = cli("run", "--follow", "busybox")
    assert (done.exit_code, done.stdout.splitlines()[-2:]) == (0, ["anew", "end"])
    assert done.stderr.splitlines()[0] == "attempt 2:"


@pytest.mark.parametrize("as_json", [True, False])
def test_lines_of_a_later_attempt(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=as_json)
    for line in (LogLine("stdout", "a"), LogLine("stdout", "b", attempt=2)):
        output._show(line)
    assert output._shown == {"stdout": 1}, (
        "those of the first do not count for the result, which is the last one's"
    )
    shown = capsys.readouterr()
    assert shown.err == ("" if as_json else "attempt 2:\n")
    assert shown.out.splitlines()[-1] == ('{"stream": "stdout", "text": "b", "attempt": 2}' if as_json else "b")


def explained(fake: Served, job: str) -> None:
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=90)
    fake.explanations[job] = Explanation(
        job_uuid=job,
        state="queued",
        summary="Both executors\x1b[2J are busy.",
        reported_by="validator",
        attempt=1,
        attempts=3,
        queue=WirePlace(position=3, length=7, starts_in_s=125),
        queue_time_left_s=600,
        miners=[
            MinerTrial(miner_hotkey="5Miner", answer="busy", message="[red]It is busy.", tries=4, last_at=moment),
            MinerTrial(miner_hotkey="0" * 48, answer="not_tried", message="Not asked.", remedy="Use --trusted."),
        ],
        remedies=["It starts when one is free."],
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_explain_says_it_in_words(cli: Cli, fake: Served, command: tuple[str, ...]) -> None:
    job = cli.job()
    explained(fake, job)
    done = cli(*command, job)
    assert (done.exit_code, done.stderr) == (0, "")
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        f"job {job}: queued, 3 of 7, starts in about 2 min, given up in 10 min, attempt 1 of 3",
        "Both executors\\x1b[2J are busy.",
        "MINER ANSWER TRIES LAST IN WORDS",
        "5Miner busy 4 1 min ago [red]It is busy.",
        "the trusted miner not_tried 0 Not asked. Use --trusted.",
        "- It starts when one is free.",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_explain_as_json(cli: Cli, fake: Served, command: tuple[str, ...]) -> None:
    job = cli.job()
    explained(fake, job)
    found = json.loads(cli(*command, "--json", job).stdout)
    assert list(found) == [
        "job_uuid",
        "state",
        "summary",
        "reported_by",
        "attempt",
        "attempts",
        "queue",
        "queue_time_left_s",
        "miners",
        "remedies",
    ]
    assert (found["job_uuid"], found["state"], found["queue_time_left_s"]) == (job, "queued", 600)
    assert found["queue"] == {"position": 3, "length": 7, "starts_in_s": 125}
    first, second = found["miners"]
    assert list(first) == ["miner_hotkey", "answer", "message", "remedy", "tries", "last_at"]
    assert dt.datetime.fromisoformat(first["last_at"]).tzinfo is not None
    assert second["last_at"] is None


def test_a_facilitator_alone_says_so(cli: Cli, fake: Served) -> None:
    job = cli.job()
    done = cli("explain", job)
    assert (done.exit_code, done.stdout) == (0, f"job {job}: sent\nThe job is sent.\n")
    assert "its validator could not be asked" in done.stderr


def test_a_facilitator_that_cannot_explain(cli: Cli, fake: Served) -> None:
    fake.extensions = frozenset()
    done = cli("explain", cli.job())
    assert (done.exit_code, done.stdout) == (69, "")
    assert "cannot explain" in done.stderr
    assert "hint: " in done.stderr


def test_a_job_that_waited_too_long(cli: Cli, fake: Served) -> None:
    problem = {
        "code": "queue_timeout",
        "message": "",
        "fault": "nobody",
        "retryable": True,
        "hint": "Wait longer.",
    }
    details = {
        "rejected_by": "validator",
        "reason": "busy",
        "message": "nothing was free within 5 s",
        "context": {"problem": problem},
    }
    fake.after = ends("rejected", {"job_rejection_details": details})
    done = cli("run", "--queue-time-limit", "5", "busybox")
    assert done.exit_code == 75
    assert "queue_timeout" in done.stderr

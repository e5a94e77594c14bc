"""What strangers wrote cannot drive the terminal, and a reader who goes away ends a command quietly."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest
import typer

from compute_horde.cli.live import beside
from compute_horde.cli.terminal import BROKEN_PIPE, note, quiet_on_broken_pipe, say_error, write_output

from .conftest import Cli, Served, failed

EVIL = ["[/b]", r"a \[/b] c", "\\", "\x1b[31mred", "\x1b]0;title\x07", "\u202etxt.exe", "one\nerror: two"]


@pytest.mark.parametrize("text", EVIL)
def test_errors_and_notes_are_shown_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_error(text, text)
    note(text)
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 3
    assert all(line.isprintable() for line in shown.splitlines())


@pytest.mark.parametrize("text", EVIL)
def test_a_refusal_of_the_facilitator(cli: Cli, fake: Served, text: str) -> None:
    fake.fail("/api/v1/job-docker/", httpx.Response(400, json={"error": text}))
    done = cli("run", "busybox")
    assert done.exit_code == 1
    assert done.stderr.removesuffix("\n").isprintable()


@pytest.mark.parametrize("text", EVIL)
def test_what_a_job_is_called(cli: Cli, fake: Served, text: str) -> None:
    job = cli.job()
    fake.advance(job, "failed", failed(1), docker_image=text, executor_class=text, tag=text)
    for args in (("jobs", "list"), ("jobs", "show", job)):
        done = cli(*args)
        assert done.exit_code == 0
        assert "\x1b" not in done.output
        assert "\u202e" not in done.output


def test_a_uuid_that_is_none(cli: Cli, fake: Served) -> None:
    def forge(fake: Served, request: httpx.Request) -> None:
        for uuid in list(fake.jobs):
            fake._jobs.replace(uuid, uuid="\x1b[2J")

    fake.after = forge
    done = cli("jobs", "list")
    assert "\x1b" not in done.output
    assert "\x1b" not in cli("run", "--detach", "busybox").output


async def test_a_reader_who_has_gone_ends_the_following() -> None:
    async def gone() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(beside(gone(), asyncio.Event().wait()), 5)


async def test_the_work_goes_on_when_all_is_shown() -> None:
    async def shown() -> None:
        return

    assert await beside(shown(), asyncio.sleep(0.001, "done")) == "done"


def test_a_broken_pipe_is_quiet() -> None:
    with pytest.raises(typer.Exit) as caught, quiet_on_broken_pipe():
        raise BrokenPipeError
    assert caught.value.exit_code == BROKEN_PIPE


PROGRAM = """
import sys
from compute_horde.cli.terminal import quiet_on_broken_pipe, write_output
import typer
try:
    with quiet_on_broken_pipe():
        while True:
            write_output(sys.stdout, "line\\n")
except typer.Exit as end:
    sys.exit(end.exit_code)
"""


def test_a_pipe_that_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")


def test_the_signal_stays_ignored(cli: Cli, fake: Served) -> None:
    """Else a broken connection to the facilitator would end the command without a word."""
    before: Any = signal.getsignal(signal.SIGPIPE)
    cli.job()
    assert signal.getsignal(signal.SIGPIPE) == before == signal.SIG_IGN


def test_write_output_to_a_file_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_output(sys.stdout, "\x1b]0;t\x07")
    assert capsys.readouterr().out == "\x1b]0;t\x07"

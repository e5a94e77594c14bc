"""Ctrl-C and SIGTERM in ``horde run``, and what a person at a terminal sees."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compute_horde.cli.key import KeySource
from compute_horde.cli.link import Link
from compute_horde.cli.place import Place
from compute_horde.cli.run import How, _run
from compute_horde.cli.terminal import err

from .conftest import Cli, Served, ends, printed

PLACE = Place("http://horde.test", "validator", KeySource(Path("none"), ""))
SPEC = {"executor_class": "always_on.test", "job_namespace": "SN0", "docker_image": "busybox"}


def link_to(fake: Served) -> Link:
    context: Any = SimpleNamespace(obj=lambda place, sleep: fake.client())
    return Link(context, PLACE)


def how(*, cancel: bool) -> How:
    return How(timeout=None, as_json=False, save=None, follow=False, detach=False, cancel=cancel, compare=False)


async def started(fake: Served, *, cancel: bool) -> "asyncio.Task[int]":
    """A ``horde run`` whose job is under way."""
    task = asyncio.ensure_future(_run(link_to(fake), SPEC, how(cancel=cancel)))
    while not fake.open_streams:  # noqa: ASYNC110 - the fake has no event for it
        await asyncio.sleep(0)
    return task


async def test_interrupted_it_names_the_job(fake: Served, capsys: pytest.CaptureFixture[str]) -> None:
    task = await started(fake, cancel=False)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (job,) = fake.jobs
    assert f"interrupted; job {job} goes on" in capsys.readouterr().err
    assert not fake.jobs[job].cancel_requested


async def test_asked_to_it_cancels_the_job(fake: Served, capsys: pytest.CaptureFixture[str]) -> None:
    task = await started(fake, cancel=True)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(asyncio.CancelledError):
        await task
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    (job,) = fake.jobs
    assert f"interrupted; job {job} was cancelled" in capsys.readouterr().err
    assert fake.jobs[job].cancel_requested


async def test_a_job_that_cannot_be_cancelled_is_named(fake: Served, capsys: pytest.CaptureFixture[str]) -> None:
    fake.extensions = fake.extensions - {next(one for one in fake.extensions if one.value == "cancel")}
    task = await started(fake, cancel=True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    assert "could not be cancelled" in capsys.readouterr().err


async def test_interrupted_while_it_is_sent(fake: Served, capsys: pytest.CaptureFixture[str]) -> None:
    task = asyncio.ensure_future(_run(link_to(fake), SPEC, how(cancel=False)))
    while not fake.requests:  # noqa: ASYNC110 - the fake has no event for it
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "horde jobs list" in capsys.readouterr().err


def test_sigterm_ends_it_with_its_own_code(cli: Cli, fake: Served) -> None:
    fake.after = lambda fake, request: (
        os.kill(os.getpid(), signal.SIGTERM) if request.url.path.endswith("/events/") else None
    )
    done = cli("run", "--cancel-on-interrupt", "busybox")
    assert done.exit_code == 143
    assert "was cancelled" in done.stderr


def test_on_a_terminal_a_spinner_shows_the_stage(cli: Cli, fake: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(err, "is_interactive", True)
    fake.after = ends("completed", printed("out\n"))
    done = cli("run", "busybox")
    assert (done.exit_code, done.stdout) == (0, "out\n")
    assert "sending the job" in done.stderr
    job, other = cli.job(), cli.job()
    waited = cli("jobs", "wait", job, other)
    assert sorted(waited.stdout.split()) == sorted([job, other, "completed", "completed"])
    assert "of 2 jobs have ended" in waited.stderr
    followed = cli("jobs", "logs", "-f", job)
    assert followed.stdout == "out\n"
    assert "sending" not in cli("run", "--json", "busybox").stderr

"""``horde jobs list`` and ``horde jobs show``, for people."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compute_horde.cli.as_json import history
from compute_horde.cli.outcome import show_error
from compute_horde.cli.progress import age, attempt, attempt_line, place
from compute_horde.cli.terminal import out, printable
from compute_horde.cli.verdict import show_verdict
from compute_horde_sdk.v1 import ComputeHordeJob, ComputeHordeJobResult

WIDE = 1000
"""Columns where no person watches, so that nothing is cut off."""

_COLOURS = {"completed": "green", "failed": "red", "rejected": "red", "horde_failed": "red", "cancelled": "yellow"}


def show_table(jobs: Iterable[ComputeHordeJob], now: dt.datetime) -> None:
    """One line a job."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("UUID", "STATUS", "CLASS", "IMAGE", "AGE", "QUEUE"):
        table.add_column(name, no_wrap=name in ("UUID", "STATUS", "AGE"), overflow="fold")
    for job in jobs:
        colour = _COLOURS.get(job.status.value, "cyan")
        table.add_row(
            cell(job.uuid),
            Text(_status(job), style=colour),
            cell(job.executor_class),
            cell(job.docker_image),
            age(now - job.created_at),
            cell(job.job_queue or ""),
        )
    console().print(table)


def show_job(job: ComputeHordeJob, now: dt.datetime) -> None:
    """All there is to say of one job, except its output."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (*_facts(job, now), *_attempts(job), *_results(job.result)):
        table.add_row(name, cell(value))
    for name, value in _stages(job):
        table.add_row(name, value)
    console().print(table)
    show_error(job)
    show_verdict(job.cross_validation)


def _facts(job: ComputeHordeJob, now: dt.datetime) -> list[tuple[str, str]]:
    facts = [
        ("job", job.uuid),
        ("status", job.status.value),
        ("waits", place(job.queue) if job.queue else ""),
        ("attempt", attempt(job).removeprefix("attempt ") if job.attempts or job.attempt > 1 else ""),
        ("image", job.docker_image),
        ("class", job.executor_class),
        ("created", f"{job.created_at.isoformat(sep=' ', timespec='seconds')} ({age(now - job.created_at)} ago)"),
        ("namespace", job.job_namespace or ""),
        ("queue", job.job_queue or ""),
        ("miner", "the validator's trusted one" if job.on_trusted_miner else ""),
    ]
    if job.streaming_server_address:
        facts.append(("streaming", f"{job.streaming_server_address}:{job.streaming_server_port}"))
    return [(name, value) for name, value in facts if value]


def _status(job: ComputeHordeJob) -> str:
    """As short as a column: ``queued (3 of 7)``, ``accepted (attempt 2 of 3)``."""
    words = []
    if job.queue is not None and job.queue.position is not None:
        words.append(place(replace(job.queue, starts_in=None)))
    if job.attempt > 1:
        words.append(attempt(job))
    return job.status.value + (f" ({', '.join(words)})" if words else "")


def _attempts(job: ComputeHordeJob) -> list[tuple[str, str]]:
    """One line for each, where there is more to say than that there was one."""
    made = job.attempts_made
    if not any(one.number > 1 or one.miner_hotkey for one in made):
        return []
    return [("" if number else "attempts", attempt_line(one)) for number, one in enumerate(made)]


def _results(result: ComputeHordeJobResult | None) -> list[tuple[str, str]]:
    if result is None:
        return []
    limit = " (stopped by the time limit)" if result.timed_out else ""
    return [
        ("exit code", ("unknown" if result.exit_code is None else str(result.exit_code)) + limit),
        ("stdout", f"{len(result.stdout)} characters"),
        ("stderr", f"{len(result.stderr)} characters"),
        *(("artifact", f"{path} ({len(data)} bytes)") for path, data in result.artifacts.items()),
        *(("upload", path) for path in result.upload_results),
        *(("output", f"{path} sha256 {digest}") for path, digest in (result.output_hashes or {}).items()),
        *([("ran image", result.image_digest)] if result.image_digest else []),
        *(("notice", notice) for notice in result.notices),
    ]


def _stages(job: ComputeHordeJob) -> list[tuple[str, str]]:
    """When each status came, and how long it lasted."""
    return [
        (
            "" if number else "history",
            f"{entry['created_at'][11:19]}  {entry['status']}"
            + (f"  attempt {entry['attempt']}" if job.attempt > 1 and entry["attempt"] else "")
            + ("" if entry["seconds"] is None else f"  for {entry['seconds']:.3f} s"),
        )
        for number, entry in enumerate(history(job))
    ]


def cell(text: str) -> Text:
    """A remote party's text in a table: no markup, no control characters."""
    return Text(printable(text))


def console() -> Console:
    """Where tables go."""
    return out if out.is_terminal else Console(width=WIDE, highlight=False)

"""``horde explain UUID``, and ``horde jobs explain UUID``, which is the same."""

import datetime as dt
from typing import Any

import typer
from rich.table import Table

from compute_horde.cli.arguments import AsJson, JobUuid
from compute_horde.cli.as_json import one_line, place
from compute_horde.cli.link import Link, failing_readably
from compute_horde.cli.place import PlaceOptions, locate, with_place_options
from compute_horde.cli.progress import age, duration, miner_name
from compute_horde.cli.progress import place as place_words
from compute_horde.cli.showing import cell, console
from compute_horde.cli.terminal import note, printable, quiet_on_broken_pipe, run_loop
from compute_horde_sdk.v1 import Explanation, MinerTrial


@with_place_options
def explain(ctx: typer.Context, asked: PlaceOptions, uuid: JobUuid, as_json: AsJson = False) -> None:
    """Say why a job has not started: what each miner was asked and answered, and what would make it run.

    Exit code 0 once it was said, whatever the job is at.

    --json: job_uuid, state, summary, reported_by, attempt, attempts, queue, queue_time_left_s, miners, remedies.
    """
    with quiet_on_broken_pipe():
        raise typer.Exit(run_loop(_explain(Link(ctx, locate(asked), quiet=as_json), uuid, as_json)))


async def _explain(link: Link, uuid: str, as_json: bool) -> int:
    async with failing_readably(), link:
        job = await link.during(link.client.get_job(uuid), lambda: "looking")
        found = await link.during(job.explain(), lambda: "asking")
        if as_json:
            typer.echo(one_line(as_object(found)))
        else:
            _show(found, dt.datetime.now(dt.UTC))
    return 0


def as_object(found: Explanation) -> dict[str, Any]:
    """Everything in it, under the names that the facilitator uses; they are a promise (docs/cli.md)."""
    return {
        "job_uuid": found.job_uuid,
        "state": found.state.value,
        "summary": found.summary,
        "reported_by": found.reported_by,
        "attempt": found.attempt,
        "attempts": found.attempts,
        "queue": place(found.queue),
        "queue_time_left_s": found.queue_time_left,
        "miners": [_trial(one) for one in found.miners],
        "remedies": list(found.remedies),
    }


def _trial(one: MinerTrial) -> dict[str, Any]:
    return {
        "miner_hotkey": one.miner_hotkey,
        "answer": one.answer,
        "message": one.message,
        "remedy": one.remedy,
        "tries": one.tries,
        "last_at": one.last_at.isoformat() if one.last_at else None,
    }


def _show(found: Explanation, now: dt.datetime) -> None:
    typer.echo(printable(f"job {found.job_uuid}: {_where(found)}"))
    typer.echo(printable(found.summary))
    if found.miners:
        console().print(_miners(found, now))
    for remedy in found.remedies:
        typer.echo(printable(f"- {remedy}"))
    if found.reported_by == "facilitator":
        note("told by the facilitator alone: its validator could not be asked")


def _where(found: Explanation) -> str:
    words = [found.state.value]
    if found.queue and (where := place_words(found.queue)):
        words.append(where)
    if found.queue_time_left is not None:
        words.append(f"given up in {duration(found.queue_time_left)}")
    if found.attempt is not None and found.attempts is not None:
        words.append(f"attempt {found.attempt} of {found.attempts}")
    return ", ".join(words)


def _miners(found: Explanation, now: dt.datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("MINER", "ANSWER", "TRIES", "LAST", "IN WORDS"):
        table.add_column(name, no_wrap=name in ("ANSWER", "TRIES", "LAST"), overflow="fold")
    for one in found.miners:
        last = f"{age(now - one.last_at)} ago" if one.last_at else ""
        words = f"{one.message} {one.remedy}".strip()
        table.add_row(cell(miner_name(one.miner_hotkey)), cell(one.answer), str(one.tries), last, cell(words))
    return table

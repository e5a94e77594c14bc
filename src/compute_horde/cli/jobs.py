"""``horde jobs list | show | explain | logs | wait | cancel``."""

import asyncio
import datetime as dt
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from compute_horde.cli.arguments import AsJson, JobUuid, JobUuids
from compute_horde.cli.as_json import one_line, summary, whole
from compute_horde.cli.explain import explain
from compute_horde.cli.link import Link, failing_readably
from compute_horde.cli.live import Output, StreamName
from compute_horde.cli.outcome import exit_code, first_failure, show_error
from compute_horde.cli.place import PlaceOptions, locate, with_place_options
from compute_horde.cli.progress import progress
from compute_horde.cli.showing import show_job, show_table
from compute_horde.cli.terminal import fail, printable, quiet_on_broken_pipe, run_loop, say_error
from compute_horde.cli.verdict import show_verdict, with_verdict
from compute_horde_sdk.v1 import ComputeHordeError, ComputeHordeJob

jobs = typer.Typer(
    name="jobs",
    help="List, inspect, follow and cancel your jobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@jobs.command("list")
@with_place_options
def list_jobs(
    ctx: typer.Context,
    asked: PlaceOptions,
    pending: Annotated[bool, typer.Option("--pending", help="Only jobs that have not ended.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List your jobs, newest first: those of the job queue, or all of them where none is set.

    --json: uuid, status, created_at, executor_class, docker_image, job_namespace, job_queue, on_trusted_miner,
    queue (position, length, starts_in_s), attempt, attempts.
    """
    link = Link(ctx, locate(asked), quiet=as_json)
    _run(_list(link, pending, limit, as_json))


@jobs.command()
@with_place_options
def show(ctx: typer.Context, asked: PlaceOptions, uuid: JobUuid, as_json: AsJson = False) -> None:
    """Show all that is known of a job, except its output: `horde jobs logs` shows that.

    --json: one object with the keys of `horde run --json`, output included.
    """
    _run(_show(Link(ctx, locate(asked), quiet=as_json), uuid, as_json))


jobs.command()(explain)


@jobs.command()
@with_place_options
def logs(
    ctx: typer.Context,
    asked: PlaceOptions,
    uuid: JobUuid,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    stdout_only: Annotated[bool, typer.Option("--stdout-only", help="Leave its stderr out.")] = False,
    stderr_only: Annotated[bool, typer.Option("--stderr-only", help="Leave its stdout out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a job printed so far: its stdout on stdout, its stderr on stderr.

    Exit code 0 once it was shown, however the job ended.

    --json: stream (stdout or stderr), text and attempt, one object a line.
    """
    if stdout_only and stderr_only:
        fail("--stdout-only and --stderr-only leave nothing to show", code=2)
    only: StreamName | None = "stdout" if stdout_only else "stderr" if stderr_only else None
    link = Link(ctx, locate(asked), quiet=as_json)
    output = Output(as_json=as_json, only=only, before=link.stop_spinning)
    _run(_logs(link, uuid, follow, output))


@jobs.command()
@with_place_options
def wait(
    ctx: typer.Context,
    asked: PlaceOptions,
    uuids: JobUuids,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait in all.", show_default=False)
    ] = None,
    verdict: Annotated[
        bool, typer.Option("--cross-validation", help="Wait for the trusted miner's verdict, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Wait until the jobs have ended; a line for each when it has.

    Exit code: as `horde run` for the first of them that did not complete, 0 when all did; 124 when the time ran
    out. --json: the keys of `horde run --json`.
    """
    link = Link(ctx, locate(asked), quiet=as_json)
    _run(_wait(link, uuids, timeout, verdict, as_json))


@jobs.command()
@with_place_options
def cancel(ctx: typer.Context, asked: PlaceOptions, uuids: JobUuids, as_json: AsJson = False) -> None:
    """Cancel jobs. What they printed so far is kept; a job that has ended stays as it is.

    Exit code 0 when each was cancelled or had ended. --json: the keys of `horde jobs list --json`.
    """
    link = Link(ctx, locate(asked), quiet=as_json)
    _run(_cancel(link, uuids, as_json))


def _run(command: Coroutine[Any, Any, int]) -> None:
    with quiet_on_broken_pipe():
        raise typer.Exit(run_loop(command))


async def _list(link: Link, pending: bool, limit: int, as_json: bool) -> int:
    async with failing_readably(), link:
        found = await link.during(_first(link, pending, limit), lambda: "looking")
        if as_json:
            for job in found:
                typer.echo(one_line(summary(job)))
        else:
            show_table(found, dt.datetime.now(dt.UTC))
    return 0


async def _first(link: Link, pending: bool, limit: int) -> list[ComputeHordeJob]:
    found: list[ComputeHordeJob] = []
    async for job in link.client.iter_jobs(pending=True if pending else None):
        found.append(job)
        if len(found) == limit:
            break
    return found


async def _show(link: Link, uuid: str, as_json: bool) -> int:
    async with failing_readably(), link:
        job = await link.during(link.client.get_job(uuid), lambda: "looking")
        if as_json:
            typer.echo(one_line(whole(job)))
        else:
            show_job(job, dt.datetime.now(dt.UTC))
    return 0


async def _logs(link: Link, uuid: str, follow: bool, output: Output) -> int:
    async with failing_readably(), link:
        job = await link.during(link.client.get_job(uuid), lambda: "looking")
        await link.during(output.show_all(job, follow=follow), lambda: f"job {job.uuid}: {progress(job)}")
    return 0


async def _wait(link: Link, uuids: list[str], timeout: float | None, verdict: bool, as_json: bool) -> int:
    def told(job: ComputeHordeJob) -> None:
        if not verdict:
            with link.spinner_aside():
                _show_ended(job, as_json)

    async with failing_readably(), link:
        found = await link.during(asyncio.gather(*map(link.client.get_job, uuids)), lambda: "looking")
        ended = await link.all_ended(found, timeout, told)
        codes = [exit_code(job) for job in ended]
        if verdict:
            codes = [await _judged(link, job, as_json) for job in ended]
    return first_failure(codes)


async def _judged(link: Link, job: ComputeHordeJob, as_json: bool) -> int:
    """Wait for the verdict on a job that has one."""
    if job.cross_validation is not None:
        await link.during(job.wait_for_cross_validation(), lambda: f"job {job.uuid}: comparing")
    _show_ended(job, as_json)
    if not as_json:
        show_verdict(job.cross_validation)
    return with_verdict(exit_code(job), job.cross_validation)


def _show_ended(job: ComputeHordeJob, as_json: bool) -> None:
    typer.echo(one_line(whole(job)) if as_json else f"{printable(job.uuid)} {job.status.value}")
    if not as_json:
        show_error(job)


async def _cancel(link: Link, uuids: list[str], as_json: bool) -> int:
    codes = []
    async with failing_readably(), link:
        for uuid in uuids:
            try:
                codes.append(await _cancel_one(link, uuid, as_json))
            except ComputeHordeError as error:  # the others are to be cancelled all the same
                say_error(f"job {uuid}: {error.message}", error.hint)
                codes.append(exit_code(error))
    return first_failure(codes)


async def _cancel_one(link: Link, uuid: str, as_json: bool) -> int:
    job = await link.during(link.client.get_job(uuid), lambda: f"job {uuid}")
    if not job.status.is_in_progress():
        said = f"had ended: {job.status.value}"
    else:
        await link.during(job.cancel(), lambda: f"cancelling job {uuid}")
        said = "is being cancelled" if job.status.is_in_progress() else job.status.value
    typer.echo(one_line(summary(job)) if as_json else f"{printable(job.uuid)} {said}")
    return 0

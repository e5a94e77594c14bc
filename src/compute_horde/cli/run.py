"""``horde run IMAGE``: submit one job, follow it, print its result."""

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from compute_horde.cli.as_json import one_line, whole
from compute_horde.cli.inputs import class_names, environment, executor_class, input_volumes, output_volumes
from compute_horde.cli.link import Link, failing_readably
from compute_horde.cli.live import Output, beside
from compute_horde.cli.outcome import exit_code, save_artifacts, show_end, show_result
from compute_horde.cli.place import PlaceOptions, locate, with_place_options
from compute_horde.cli.terminal import fail, note, printable, quiet_on_broken_pipe, run_loop
from compute_horde.cli.verdict import show_verdict, with_verdict
from compute_horde_sdk.v1 import ComputeHordeError, ComputeHordeJob, CrossValidation

CANCEL_SECONDS = 30
TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class How:
    """What to do with the job besides sending it."""

    timeout: float | None
    as_json: bool
    save: Path | None
    follow: bool
    detach: bool
    cancel: bool
    compare: bool


@with_place_options
def run(
    ctx: typer.Context,
    asked: PlaceOptions,
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="Docker image of the job, such as busybox or user/image:tag.")
    ],
    args: Annotated[list[str] | None, typer.Argument(metavar="-- ARG...", help="Command and arguments.")] = None,
    class_name: Annotated[
        str, typer.Option("--class", help="Class of machine to run on.", autocompletion=class_names)
    ] = "always_on.test",
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; repeat for more.")] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(help="File of NAME=VALUE lines; NAME alone takes it from here.", show_default=False),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="/volume/PATH=SOURCE, a local file or folder, or an http(s) URL; repeat for more.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", help="/output/PATH=URL, uploaded by PUT; repeat for more."),
    ] = None,
    artifacts_dir: Annotated[
        str, typer.Option(help="Folder in the container whose files come back as artifacts.")
    ] = "/artifacts",
    save: Annotated[
        Path | None, typer.Option("--save", help="Local folder to write the artifacts to.", show_default=False)
    ] = None,
    namespace: Annotated[str, typer.Option(help="Where the job comes from, such as SN123.0.")] = "cli",
    download_limit: Annotated[int, typer.Option(min=0, help="Seconds for fetching inputs.")] = 60,
    execution_limit: Annotated[int, typer.Option(min=0, help="Seconds for running.")] = 300,
    upload_limit: Annotated[int, typer.Option(min=0, help="Seconds for artifacts and uploads.")] = 60,
    queue_time_limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Seconds to wait for an executor in all; 0 ends the job at once where none is free.",
            show_default="the validator's",
        ),
    ] = None,
    attempts: Annotated[
        int | None,
        typer.Option(
            min=1, help="How often it is tried, where the horde fails it.", show_default="the validator's"
        ),
    ] = None,
    retry_backoff: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds before the second attempt; then they double.", show_default="the validator's"
        ),
    ] = None,
    priority: Annotated[int, typer.Option(help="-100 to 100; higher ones are taken first.")] = 0,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait for the end in all.", show_default=False)
    ] = None,
    trusted: Annotated[bool, typer.Option("--trusted", help="Run on the validator's trusted miner.")] = False,
    cross_validate: Annotated[
        bool, typer.Option("--cross-validate", help="Repeat the job on the trusted miner, and compare.")
    ] = False,
    trusted_outputs: Annotated[
        list[str] | None,
        typer.Option("--trusted-output", help="/output/PATH=URL of that repetition; repeat for more."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Tell the validator when the trusted miner contradicts.")
    ] = True,
    follow: Annotated[
        bool | None,
        typer.Option(
            "--follow/--no-follow", "-f", help="Show output while it runs.", show_default="on a terminal"
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Print the job's uuid and leave it alone.")
    ] = False,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C and SIGTERM cancel the job.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the job as one JSON object, at its end.")] = False,
) -> None:
    """Submit a job, follow it, print its result.

    The job's stdout goes to stdout and its stderr to stderr. Exit code: the job's own; 124 when the execution
    limit (or --timeout) ran out; 65 when its input or output was at fault; 69 when the horde failed it; 75 when
    it was rejected (busy, no miner); 76 when the trusted miner contradicts it; 77 when you are not allowed; 79
    when it was cancelled; 130 after Ctrl-C, which leaves the job running; 2 for wrong arguments.

    --json: uuid, status, created_at, executor_class, docker_image, job_namespace, job_queue, on_trusted_miner,
    queue, attempt, attempts, exit_code, timed_out, stdout, stderr, artifacts (base64), upload_results, notices,
    image_digest, output_hashes, error, attempts_made, status_history, streaming, cross_validation.

    Example: `horde run -i /volume/data.txt=./data.txt busybox -- wc /volume/data.txt`
    """
    _check_together(as_json=as_json, follow=follow, detach=detach, save=save)
    if trusted_outputs and not cross_validate:
        fail("--trusted-output is for --cross-validate", code=2)
    spec: dict[str, Any] = {
        "executor_class": executor_class(class_name),
        "job_namespace": namespace,
        "docker_image": image,
        "args": args[1:] if args and args[0] == "--" else args or [],
        "env": environment(env_file, env or []),
        "artifacts_dir": artifacts_dir or None,
        "input_volumes": input_volumes(inputs or []),
        "output_volumes": output_volumes(outputs or [], "--output"),
        "run_cross_validation": cross_validate,
        "cross_validation": CrossValidation(report=report) if cross_validate else None,
        "trusted_output_volumes": output_volumes(trusted_outputs or [], "--trusted-output"),
        "download_time_limit_sec": download_limit,
        "execution_time_limit_sec": execution_limit,
        "upload_time_limit_sec": upload_limit,
        "queue_time_limit_sec": queue_time_limit,
        "attempts": attempts,
        "retry_backoff_sec": retry_backoff,
        "priority": priority,
        "on_trusted_miner": trusted,
    }
    live = not as_json and (sys.stdout.isatty() if follow is None else follow)
    how = How(timeout, as_json, save, live, detach, cancel_on_interrupt, cross_validate)
    try:
        with quiet_on_broken_pipe():
            raise typer.Exit(run_loop(_run(Link(ctx, locate(asked), quiet=as_json), spec, how)))
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED) from None


def _check_together(*, as_json: bool, follow: bool | None, detach: bool, save: Path | None) -> None:
    if as_json and follow:
        fail("--json prints the job at its end; it does not go with --follow", code=2)
    if detach and (follow or save):
        fail("--detach does not wait for anything to follow or save", "`horde jobs logs -f UUID` follows.", 2)


async def _run(link: Link, spec: dict[str, Any], how: How) -> int:
    if how.cancel:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - there is one in a coroutine, for the type checker
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with failing_readably(), link:
        try:
            job = await link.during(link.client.create_job(**spec), lambda: "sending the job")
        except asyncio.CancelledError:
            note("interrupted while the job was being sent; `horde jobs list` shows whether it arrived")
            raise
        if how.detach:
            typer.echo(one_line(whole(job)) if how.as_json else printable(job.uuid))
            return 0
        try:
            return await _to_the_end(link, job, how)
        except asyncio.CancelledError:
            await _interrupted(job, cancel=how.cancel)
            raise
    raise AssertionError("unreachable")  # pragma: no cover - failing_readably exits


async def _to_the_end(link: Link, job: ComputeHordeJob, how: How) -> int:
    output = Output(before=link.stop_spinning)
    clock = asyncio.get_running_loop().time
    until = None if how.timeout is None else clock() + how.timeout
    if how.follow:
        job = await beside(output.show_live(job), link.ended(job, how.timeout))
    else:
        job = await link.ended(job, how.timeout)
    if how.save is not None:
        save_artifacts(job, how.save)
    if how.follow:
        await output.show_rest(job)
        show_end(job)
    elif not how.as_json:
        show_result(job)
    code = exit_code(job)
    if how.compare:
        left = None if until is None else max(until - clock(), 0)
        comparison = await link.during(job.wait_for_cross_validation(left), lambda: "comparing")
        code = with_verdict(code, comparison)
        show_verdict(comparison)
    if how.as_json:
        typer.echo(one_line(whole(job)))
    return code


async def _interrupted(job: ComputeHordeJob, *, cancel: bool) -> None:
    """Say what becomes of the job. Exit code 130 follows from Ctrl-C itself."""
    if not job.status.is_in_progress():
        return
    if not cancel:
        note(
            f"interrupted; job {job.uuid} goes on: `horde jobs wait {job.uuid}`, or `horde jobs cancel {job.uuid}`"
        )
        return
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            await job.cancel()
    except (ComputeHordeError, TimeoutError) as error:
        note(f"interrupted; job {job.uuid} could not be cancelled: {error}")
    else:
        note(f"interrupted; job {job.uuid} was cancelled")

"""``horde run IMAGE``: submit one job, follow it, print its result."""

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Annotated, Any

import bittensor_wallet
import typer
from rich.status import Status

from compute_horde.cli.outcome import exit_code, save_artifacts, show_result, to_json
from compute_horde.cli.terminal import err, fail, quiet_on_broken_pipe, run_loop
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeError,
    ComputeHordeJob,
    ComputeHordeJobTimeoutError,
    ExecutorClass,
    HTTPInputVolume,
    HTTPOutputVolume,
    InlineInputVolume,
)


def run(
    image: Annotated[str, typer.Argument(help="Docker image of the job, such as busybox or user/image:tag.")],
    args: Annotated[list[str] | None, typer.Argument(metavar="-- ARG...", help="Command and arguments.")] = None,
    executor_class: Annotated[str, typer.Option("--class", help="Class of machine to run on.")] = "always_on.test",
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; repeat for more.")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", help="/volume/PATH=SOURCE, a local file or an http(s) URL; repeat for more."
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
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait for the result in all.", show_default=False)
    ] = None,
    trusted: Annotated[bool, typer.Option("--trusted", help="Run on the validator's trusted miner.")] = False,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="The folder of a local `horde up`.", show_default=False)
    ] = None,
    facilitator: Annotated[
        str,
        typer.Option(envvar="HORDE_FACILITATOR_URL", help="Facilitator URL.", show_default="the local horde's"),
    ] = "",
    validator: Annotated[
        str,
        typer.Option(
            envvar="HORDE_VALIDATOR_HOTKEY", help="Validator's hotkey.", show_default="the local horde's"
        ),
    ] = "",
    wallet_path: Annotated[str, typer.Option(help="Wallet folder.", show_default="the local horde's")] = "",
    wallet_name: Annotated[str, typer.Option(help="Wallet name.", show_default="the local horde's")] = "",
    wallet_hotkey: Annotated[str, typer.Option(help="Hotkey name.", show_default="the local horde's")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Submit a job, follow it, print its result.

    The job's stdout goes to stdout and its stderr to stderr. Exit code: the job's own; 124 when the execution
    limit stopped it; 65 when its input or output was at fault; 69 when the horde failed it; 75 when it was
    rejected (busy, no miner); 77 when you are not allowed; 2 for wrong arguments.

    Example: `horde run -i /volume/data.txt=./data.txt busybox -- wc /volume/data.txt`
    """
    quiet_on_broken_pipe()
    where = _locate(directory, facilitator, validator, (wallet_path, wallet_name, wallet_hotkey))
    spec: dict[str, Any] = {
        "executor_class": _executor_class(executor_class),
        "job_namespace": namespace,
        "docker_image": image,
        "args": args[1:] if args and args[0] == "--" else args or [],
        "env": dict(_pair(item, "--env", "NAME=VALUE") for item in env or []),
        "artifacts_dir": artifacts_dir or None,
        "input_volumes": dict(_input(item) for item in inputs or []) or None,
        "output_volumes": dict(_output(item) for item in outputs or []) or None,
        "download_time_limit_sec": download_limit,
        "execution_time_limit_sec": execution_limit,
        "upload_time_limit_sec": upload_limit,
        "on_trusted_miner": trusted,
    }
    raise typer.Exit(run_loop(_run(where, spec, timeout, as_json, save)))


async def _run(
    where: dict[str, str], spec: dict[str, Any], timeout: float | None, as_json: bool, save: Path | None
) -> int:
    hotkey = _load_hotkey(where)
    try:
        async with ComputeHordeClient(hotkey, where["validator"], facilitator_url=where["facilitator"]) as client:
            job = await client.create_job(**spec)
            try:
                await _follow(job, timeout, quiet=as_json)
            except asyncio.CancelledError:
                err.print(f"interrupted; job {job.uuid} goes on", markup=False, highlight=False)
                raise
    except ComputeHordeJobTimeoutError as error:
        fail(str(error), error.hint, 124)
    except ComputeHordeError as error:
        fail(str(error), error.hint, exit_code(error))
    if save is not None:
        save_artifacts(job, save)
    if as_json:
        typer.echo(json.dumps(to_json(job)))
    else:
        show_result(job)
    return exit_code(job)


async def _follow(job: ComputeHordeJob, timeout: float | None, *, quiet: bool) -> None:
    """Wait, with the newest status on a spinner where a person is watching."""
    if quiet or not err.is_terminal:
        await job.wait(timeout)
        return
    with Status(f"job {job.uuid}: {job.status.value}", console=err) as status:
        waiting = asyncio.ensure_future(job.wait(timeout))
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=0.1)
            status.update(f"job {job.uuid}: {job.status.value}")
        await waiting


def _locate(
    directory: Path | None, facilitator: str, validator: str, wallet: tuple[str, str, str]
) -> dict[str, str]:
    """Explicit options first, then what a local horde announced."""
    known = _announced(directory)
    where = {
        "facilitator": facilitator or known.get("facilitator_url", ""),
        "validator": validator or known.get("validator_hotkey", ""),
        "path": wallet[0] or known.get("wallet_path", ""),
        "name": wallet[1] or known.get("wallet_name", ""),
        "hotkey": wallet[2] or known.get("wallet_hotkey", ""),
    }
    if missing := [name for name, value in where.items() if not value]:
        fail(
            f"do not know where to send the job: {', '.join(missing)} not given, and no local horde is running",
            "Start one with `horde up`, or give --facilitator, --validator and the --wallet options.",
            2,
        )
    return where


def _announced(directory: Path | None) -> dict[str, str]:
    file = (directory or _default_home()).expanduser() / "horde.json"
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _default_home() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "compute-horde"


def _load_hotkey(where: dict[str, str]) -> Any:
    path = Path(where["path"]).expanduser()
    file = path / where["name"] / "hotkeys" / where["hotkey"]
    if not file.is_file():
        fail(f"no hotkey at {file}", "Check --wallet-path, --wallet-name and --wallet-hotkey.", 2)
    return bittensor_wallet.Wallet(where["name"], where["hotkey"], str(path)).hotkey


def _executor_class(name: str) -> ExecutorClass:
    try:
        return ExecutorClass(name)
    except ValueError:
        fail(f"unknown class {name!r}", f"Choose one of: {', '.join(ExecutorClass)}.", 2)


def _pair(item: str, option: str, shape: str) -> tuple[str, str]:
    name, sign, value = item.partition("=")
    if not sign or not name:
        fail(f"{option} {item!r} must be {shape}", code=2)
    return name, value


def _input(item: str) -> tuple[str, HTTPInputVolume | InlineInputVolume]:
    path, source = _pair(item, "--input", "/volume/PATH=SOURCE")
    if source.startswith(("http://", "https://")):
        return path, HTTPInputVolume(url=source)
    try:
        contents = Path(source).expanduser().read_bytes()
    except OSError as error:
        fail(f"--input {path}: cannot read {source}: {error.strerror}", code=2)
    return path, InlineInputVolume(contents=base64.b64encode(contents).decode())


def _output(item: str) -> tuple[str, HTTPOutputVolume]:
    path, url = _pair(item, "--output", "/output/PATH=URL")
    return path, HTTPOutputVolume(http_method="PUT", url=url)

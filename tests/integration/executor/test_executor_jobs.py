"""Whole jobs in real containers: what works, and what a hostile or unlucky job does."""

import asyncio
import base64
import io
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from compute_horde.executor import DockerRuntime, Executor, ExecutorSettings
from compute_horde.executor.fake_miner import FakeMiner
from compute_horde.executor.runtime import ContainerSpec
from compute_horde.protocol.validator_miner import ExecutorTiming

if TYPE_CHECKING:
    from tests.integration.conftest import HttpServer

pytestmark = pytest.mark.engine

MIB = 2**20


def zip64(files: dict[str, bytes]) -> str:
    """An inline volume's contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return base64.b64encode(buffer.getvalue()).decode()


def timing(download: int = 20, execution: int = 20, upload: int = 20, leeway: int = 0) -> ExecutorTiming:
    return ExecutorTiming(
        allowed_leeway=leeway,
        download_time_limit=download,
        execution_time_limit=execution,
        upload_time_limit=upload,
    )


class Bench:
    """Runs jobs one by one and looks at what is left."""

    def __init__(self, image: str, work_dir: Path) -> None:
        self._image, self.work_dir = image, work_dir

    async def run(
        self,
        *command: str,
        initial: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        **job: Any,
    ) -> FakeMiner:
        chosen = ExecutorSettings(
            work_dir=self.work_dir,
            memory_bytes=64 * MIB,
            pids_limit=64,
            allow_private_networks=True,
            **(settings or {}),
        )
        runtime = DockerRuntime(chosen)
        image = job.pop("docker_image", self._image)
        miner = FakeMiner(
            {"docker_image": image, **(initial or {})},
            {"docker_image": image, "docker_run_cmd": list(command), **job},
        )
        try:
            async with asyncio.timeout(60):
                await Executor(chosen, runtime, miner.dialer).run(miner.url, miner.token)
            assert await runtime.remove_leftovers(frozenset) == 0, "a container was left behind"
            assert list(self.work_dir.iterdir()) == [], "a folder was left behind"
        finally:
            await runtime.close()
        return miner

    async def shell(self, script: str, **more: Any) -> FakeMiner:
        return await self.run("sh", "-c", script, **more)


@pytest.fixture
def bench(busybox_image: str, tmp_path: Path) -> Bench:
    return Bench(busybox_image, tmp_path / "work")


def failed(miner: FakeMiner, code: str) -> Any:
    """The failure that a job ended with."""
    last = miner.last
    assert last.message_type in ("V0JobFailedRequest", "V0HordeFailedRequest"), last
    assert last.context["problem"]["code"] == code
    return last


async def test_inputs_artifacts_and_uploads(bench: Bench, http_server: "HttpServer") -> None:
    http_server.serve("/in", b"from http")
    http_server.serve("/put", b"taken")
    http_server.serve("/post", b"taken too")
    miner = await bench.shell(
        "cat /volume/a/inline.txt /volume/http.txt; cp /volume/http.txt /output/copy; "
        "mkdir /output/d; echo deep > /output/d/deep; echo art > /artifacts/art; env | grep KEY; "
        "echo more >> /volume/a/inline.txt && echo writable",
        initial={
            "volume": {
                "volume_type": "multi_volume",
                "volumes": [
                    {
                        "volume_type": "inline",
                        "contents": zip64({"inline.txt": b"inline "}),
                        "relative_path": "a/",
                    },
                    {
                        "volume_type": "single_file",
                        "url": http_server.url("/in?secret=1"),
                        "relative_path": "http.txt",
                    },
                ],
            }
        },
        env={"KEY": "a=b"},
        artifacts_dir="/artifacts",
        output_upload={
            "output_upload_type": "multi_upload",
            "uploads": [
                {
                    "output_upload_type": "single_file_put",
                    "url": http_server.url("/put"),
                    "relative_path": "copy",
                    "signed_headers": {"X-Signed": "yes"},
                },
                {
                    "output_upload_type": "single_file_post",
                    "url": http_server.url("/post"),
                    "relative_path": "stdout.txt",
                    "form_fields": {"policy": "p"},
                },
            ],
            "system_output": {"output_upload_type": "zip_and_http_put", "url": http_server.url("/put")},
        },
    )
    last = miner.last
    assert last.message_type == "V0JobFinishedRequest", last
    assert last.docker_process_stdout == "inline from httpKEY=a=b\nwritable\n"
    assert (last.exit_status, last.timed_out, last.notices) == (0, False, None)
    assert last.artifacts == {"/artifacts/art": base64.b64encode(b"art\n").decode()}
    assert json.loads(last.upload_results["copy"])["body"] == "taken"
    assert json.loads(last.upload_results["stdout.txt"])["body"] == "taken too"
    requests = {(r.method, r.headers.get("X-Signed")): r for r in http_server.received}
    assert requests["PUT", "yes"].body == b"from http"
    assert requests["PUT", "yes"].headers["Content-Length"] == "9"
    post = requests["POST", None].body
    assert post.index(b'name="policy"') < post.index(b'name="file"; filename="stdout.txt"')
    with zipfile.ZipFile(io.BytesIO(requests["PUT", None].body)) as archive:
        assert sorted(archive.namelist()) == ["d/deep", "stderr.txt"]


async def test_an_image_from_a_registry(bench: Bench, registry: str) -> None:
    miner = await bench.run("echo", "pulled", docker_image=f"{registry}/busybox:1")
    assert miner.last.docker_process_stdout == "pulled\n"


async def test_an_unknown_image(bench: Bench, registry: str) -> None:
    miner = await bench.run("true", docker_image=f"{registry}/unknown:1")
    assert failed(miner, "image_not_found").message_type == "V0JobFailedRequest"
    assert miner.names() == ["V0JobFailedRequest"]


async def test_an_exit_code(bench: Bench) -> None:
    last = failed(await bench.shell("echo out; echo err >&2; exit 7"), "nonzero_exit")
    assert (last.docker_process_exit_status, last.reason, last.stage) == (7, "nonzero_return_code", "execution")
    assert (last.docker_process_stdout, last.docker_process_stderr) == ("out\n", "err\n")


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
async def test_a_job_that_kills_itself_has_failed_by_itself(bench: Bench, signal: str) -> None:
    """Its first process has no one to kill it but its children, and the engine."""
    last = failed(await bench.shell(f"sh -c 'kill -{signal} $$'; exit $?"), "nonzero_exit")
    assert last.message_type == "V0JobFailedRequest"
    assert last.docker_process_exit_status == {"KILL": 137, "TERM": 143}[signal]


async def test_a_command_that_is_not_there(bench: Bench) -> None:
    failed(await bench.run("no-such-command"), "container_start_failed")


async def test_too_much_memory(bench: Bench) -> None:
    last = failed(await bench.shell("echo before; exec tail -c 500000000 /dev/zero"), "out_of_memory")
    assert last.docker_process_exit_status == 137
    assert last.docker_process_stdout == "before\n"


async def test_forks_without_end(bench: Bench) -> None:
    script = "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 600"
    miner = await bench.shell(script, initial={"executor_timing": timing(execution=2)})
    assert miner.last.message_type in ("V0JobFinishedRequest", "V0JobFailedRequest")


@pytest.mark.parametrize("place", ["/output/big", "/tmp/big"])  # a mount, and the container's own layer
async def test_fills_the_disk(bench: Bench, place: str) -> None:
    script = f"echo before; for n in 1 2 3 4 5 6 7 8; do head -c 8000000 /dev/zero > {place}$n; done; sleep 600"
    last = failed(await bench.shell(script, settings={"disk_bytes": 40 * MIB}), "disk_full")
    assert last.docker_process_stdout == "before\n"


async def test_prints_a_gigabyte(bench: Bench) -> None:
    started = time.monotonic()
    script = "echo first; head -c 1000000000 /dev/zero | tr '\\0' 'x'; echo; echo last"
    miner = await bench.shell(script, initial={"executor_timing": timing(execution=50)})
    text = miner.last.docker_process_stdout
    assert text.startswith("first\nxxx")
    assert text.endswith("xxx\nlast\n")
    assert len(text) == 1_000_005
    assert time.monotonic() - started < 45


async def test_links_fifos_and_devices_as_artifacts(bench: Bench) -> None:
    script = (
        "cd /artifacts; ln -s /etc/passwd link; mkfifo fifo; mknod device c 1 3 2>/dev/null; mkdir folder; "
        "echo fine > file; head -c 1000000 /dev/zero > large; head -c 999999 /dev/zero > largest; "
        "rm -rf /output/*; ln -s /etc/passwd /output/stdout.txt; mkdir -p /output/stderr.txt/x"
    )
    last = (await bench.shell(script, artifacts_dir="/artifacts/")).last
    assert sorted(last.artifacts) == ["/artifacts/file", "/artifacts/largest"]
    assert len(last.notices) == 4
    for name in ("link", "fifo", "folder", "large"):
        assert any(f"'{name}'" in notice for notice in last.notices)


@pytest.mark.parametrize("make", ["ln -s /etc/passwd", "mkfifo", "mkdir"])
async def test_an_output_that_is_no_file(bench: Bench, http_server: "HttpServer", make: str) -> None:
    upload = {"output_upload_type": "single_file_put", "url": http_server.url("/x"), "relative_path": "out"}
    last = failed(await bench.shell(f"{make} /output/out", output_upload=upload), "output_invalid")
    assert last.stage == "result_upload"
    assert http_server.received == []


async def test_runs_past_its_limit_and_ignores_sigterm(bench: Bench, http_server: "HttpServer") -> None:
    started = time.monotonic()
    miner = await bench.shell(
        "trap '' TERM; echo kept > /output/kept; echo printed; while true; do sleep 1; done",
        initial={"executor_timing": timing(execution=1)},
        output_upload={
            "output_upload_type": "single_file_put",
            "url": http_server.serve("/kept"),
            "relative_path": "kept",
        },
    )
    last = miner.last
    assert last.message_type == "V0JobFinishedRequest", last
    assert (last.timed_out, last.exit_status, last.docker_process_stdout) == (True, 137, "printed\n")
    assert last.docker_process_stderr == "The execution time limit of 1 s stopped the job.\n"
    assert http_server.received[0].body == b"kept\n"
    assert "V0ExecutionDoneRequest" in miner.names()
    assert time.monotonic() - started < 8


async def test_runs_past_its_limit_without_writing_its_output(bench: Bench, http_server: "HttpServer") -> None:
    upload = {"output_upload_type": "single_file_put", "url": http_server.url("/x"), "relative_path": "never"}
    miner = await bench.shell(
        "echo printed; sleep 600", initial={"executor_timing": timing(execution=1)}, output_upload=upload
    )
    last = failed(miner, "execution_timeout")
    assert (last.reason, last.docker_process_stdout) == ("timeout", "printed\n")


async def test_an_upload_that_is_forbidden(bench: Bench, http_server: "HttpServer") -> None:
    url = http_server.serve("/no", b"go away", 403) + "?signature=secret"
    upload = {"output_upload_type": "single_file_put", "url": url, "relative_path": "stdout.txt"}
    last = failed(await bench.run("echo", "out", output_upload=upload), "upload_http_error")
    assert last.context["problem"]["details"] == {"status": 403}
    assert last.docker_process_stdout == "out\n"
    assert "secret" not in last.to_frame()
    assert len(http_server.received) == 1


async def test_an_upload_that_is_never_answered(bench: Bench, http_server: "HttpServer") -> None:
    upload = {
        "output_upload_type": "single_file_put",
        "url": http_server.stall("/stall"),
        "relative_path": "stdout.txt",
    }
    limits = timing(download=1, execution=1, upload=0, leeway=0)
    last = failed(
        await bench.run("true", output_upload=upload, initial={"executor_timing": limits}), "upload_timeout"
    )
    assert (last.reason, last.stage) == ("timeout", "result_upload")


type_of = {"single_file": "url", "zip_url": "contents"}


@pytest.mark.parametrize("kind", ["single_file", "zip_url"])
@pytest.mark.parametrize(
    ("serve", "code"),
    [
        (lambda server: server.url("/missing"), "download_http_error"),
        (lambda server: server.serve("/large", b"x" * 2_000_001), "volume_too_large"),
        (lambda server: server.flood("/flood"), "volume_too_large"),
        (lambda server: server.stall("/stall"), "download_timeout"),
    ],
    ids=["404", "large", "flood", "stall"],
)
async def test_downloads_that_fail(
    bench: Bench, http_server: "HttpServer", serve: "Callable[[HttpServer], str]", code: str, kind: str
) -> None:
    url = serve(http_server) + "?token=secret"
    volume = {"volume_type": kind, type_of[kind]: url, "relative_path": "file"}
    miner = await bench.run(
        "true",
        initial={"volume": volume, "executor_timing": timing(download=1)},
        settings={"download_max_bytes": 2_000_000},
    )
    last = failed(miner, code)
    assert (last.message_type, last.stage) == ("V0JobFailedRequest", "volume_download")
    assert "secret" not in last.to_frame()


async def test_cancelling_kills_the_container(busybox_image: str, tmp_path: Path) -> None:
    settings = ExecutorSettings(work_dir=tmp_path / "work")
    runtime = DockerRuntime(settings)
    miner = FakeMiner(
        {"docker_image": busybox_image}, {"docker_image": busybox_image, "docker_run_cmd": ["sleep", "600"]}
    )
    running = asyncio.create_task(Executor(settings, runtime, miner.dialer).run(miner.url, miner.token))
    while "V0VolumesReadyRequest" not in miner.names():  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await runtime.remove_leftovers(frozenset) == 0
    assert list((tmp_path / "work").iterdir()) == []
    await runtime.close()


async def test_what_a_crash_left_is_removed(busybox_image: str, tmp_path: Path) -> None:
    """The folder's lock is free and its container runs: so its executor is gone."""
    settings = ExecutorSettings(work_dir=tmp_path / "work")
    (tmp_path / "work/dead-token/output").mkdir(parents=True)
    (tmp_path / "work/dead-token/lock").touch()
    runtime = DockerRuntime(settings)
    image = await runtime.ensure_image(busybox_image)
    spec = ContainerSpec(token="dead-token", image=image, command=("sleep", "600"))
    await runtime.start(spec, lambda *_: None)
    await Executor(settings, runtime, FakeMiner().dialer).warm()
    assert await runtime.remove_leftovers(frozenset) == 0
    assert list((tmp_path / "work").iterdir()) == []
    await runtime.close()
